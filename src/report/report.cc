#include "report/report.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"
#include "report/page.h"
#include "report/run_data.h"

namespace birkhoff::report {

using nlohmann::json;

void write_report(const std::string& run, const std::string& sample) {
  json d = run_data(run);
  if (!sample.empty()) d["sample"] = sample;
  const std::string title = d["name"].get<std::string>();
  io::write_file_atomic(run + "/report.html", whole_page(title, {{"runs", {d}}}));
}

void write_comparison(const std::vector<std::string>& runs, const std::string& out) {
  json list = json::array();
  for (const std::string& run : runs) list.push_back(run_data(run));
  io::write_file_atomic(out, whole_page("Comparison of " + std::to_string(runs.size()) + " runs", {{"runs", list}}));
}

void write_study(const json& study, const std::string& out) {
  io::write_file_atomic(out, whole_page("Study " + study["study"]["name"].get<std::string>(), {{"study", study}}));
}
void write_expert_report(const json& specialisation, const std::string& out) {
  io::write_file_atomic(
      out, whole_page("Experts of " + specialisation.at("model").get<std::string>(), {{"experts", specialisation}}));
}

}  // namespace birkhoff::report
