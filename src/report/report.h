// report.html: one self-contained page of a run; and several runs side by side.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace birkhoff::report {

// Writes RUN/report.html from RUN's metrics.jsonl, config.json, run.json and a sample of the model's text ("" leaves
// that section out). Sections without data (a dense model, plain residuals) are left out. Throws Error when RUN is no
// run or the file cannot be written.
void write_report(const std::string& run, const std::string& sample);
// The same for several runs: curves over each other, final figures and the settings in which they differ.
void write_comparison(const std::vector<std::string>& runs, const std::string& out);

// The page of a study (lab/compare/study_page.h says what `page` holds).
void write_study(const nlohmann::json& page, const std::string& out);
// The page of lab::specialisation_json (with "model"): loads, information, telling tokens.
void write_expert_report(const nlohmann::json& specialisation, const std::string& out);

}  // namespace birkhoff::report
