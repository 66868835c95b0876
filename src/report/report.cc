#include "report/report.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"
#include "report/page.h"
#include "report/run_data.h"

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

std::string page(const std::string& title, const json& data) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\">\n<title>" +
         escaped(title) + "</title>\n<style>\n" + std::string(page_style()) +
         "</style></head>\n<body><main id=\"page\"></main>\n<script type=\"application/json\" id=\"data\">" +
         embedded(data) + "</script>\n<script>\n" + std::string(page_script()) + "</script>\n</body></html>\n";
}

}  // namespace

void write_report(const std::string& run, const std::string& sample) {
  json d = run_data(run);
  if (!sample.empty()) d["sample"] = sample;
  const std::string title = d["name"].get<std::string>();
  io::write_file_atomic(run + "/report.html", page(title, {{"runs", {d}}}));
}

void write_comparison(const std::vector<std::string>& runs, const std::string& out) {
  json list = json::array();
  for (const std::string& run : runs) list.push_back(run_data(run));
  io::write_file_atomic(out, page("Comparison of " + std::to_string(runs.size()) + " runs", {{"runs", list}}));
}

void write_study(const json& study, const std::string& out) {
  io::write_file_atomic(out, page("Study " + study["study"]["name"].get<std::string>(), {{"study", study}}));
}
void write_expert_report(const json& specialisation, const std::string& out) {
  io::write_file_atomic(
      out, page("Experts of " + specialisation.at("model").get<std::string>(), {{"experts", specialisation}}));
}

}  // namespace birkhoff::report
