#include "report/page.h"

#include <nlohmann/json.hpp>

namespace birkhoff::report {
namespace {

using nlohmann::json;

// JSON inside a script element: no text of a run can end it.
std::string embedded(const json& data) {
  std::string out;
  for (const char c : data.dump(-1, ' ', false, json::error_handler_t::replace)) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string whole_page(const std::string& title, const json& data) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\">\n<title>" +
         escaped(title) + "</title>\n<style>\n" + std::string(page_style()) +
         "</style></head>\n<body><main id=\"page\"></main>\n<script type=\"application/json\" id=\"data\">" +
         embedded(data) + "</script>\n<script>\n" + std::string(page_script()) + "</script>\n</body></html>\n";
}

}  // namespace birkhoff::report
