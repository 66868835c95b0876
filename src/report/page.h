// A page: its style and drawing code, compiled in from page.css and the scripts of this folder, and its data.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace birkhoff::report {

std::string_view page_style();
std::string_view page_script();
// Self-contained HTML that draws `data`; no text in it can end the script it stands in.
std::string whole_page(const std::string& title, const nlohmann::json& data);

}  // namespace birkhoff::report
