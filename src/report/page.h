// The page's style and drawing code, compiled in from page.css, page.js and study.js.
#pragma once
#include <string_view>

namespace birkhoff::report {

std::string_view page_style();
std::string_view page_script();

}  // namespace birkhoff::report
