// report.html: one self-contained page of a run; and several runs side by side.
#pragma once
#include <string>
#include <vector>

namespace birkhoff::train {

// Writes RUN/report.html from metrics.jsonl, config.json, run.json and the text. Throws Error.
void write_report(const std::string& run, const std::string& sample);
void write_comparison(const std::vector<std::string>& runs, const std::string& out);

}  // namespace birkhoff::train
