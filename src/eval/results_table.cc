#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "eval/evaluation.h"

namespace birkhoff::eval {
namespace {

using TableRow = std::vector<std::string>;

std::string decimals(const nlohmann::json& v) {
  if (!v.is_number()) return v.is_string() ? v.get<std::string>() : "";
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", v.get<double>());
  return text;
}

std::string as_word(const nlohmann::json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); }

// A row a metric and filter; of a group there are no shots.
void append_rows(const std::string& name, const nlohmann::json& r, std::vector<TableRow>& rows) {
  bool first = true;
  for (const auto& [key, value] : r.items()) {
    const size_t comma = key.find(',');
    if (comma == std::string::npos || key.substr(0, comma).ends_with("_stderr")) continue;
    const std::string metric = key.substr(0, comma), filter = key.substr(comma + 1);
    TableRow row = {name,
                    as_word(r.at("version")),
                    filter,
                    r.contains("num_fewshot") ? r.at("num_fewshot").dump() : "",
                    as_word(r.at("n")),
                    metric,
                    decimals(value),
                    decimals(r.value(metric + "_stderr," + filter, nlohmann::json()))};
    if (!first) row[0] = row[1] = row[3] = row[4] = "";
    first = false;
    rows.push_back(std::move(row));
  }
}

}  // namespace

std::string results_table(const nlohmann::json& results) {
  std::vector<TableRow> rows = {{"task", "version", "filter", "shots", "documents", "metric", "value", "+-"}};
  for (const auto& [name, r] : results.at("results").items()) append_rows(name, r, rows);
  for (const auto& [name, r] : results.at("groups").items()) append_rows(name, r, rows);
  std::vector<size_t> widths(rows.front().size());
  for (const TableRow& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (const TableRow& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      const bool number = i == 1 || i == 3 || i == 4 || i >= 6;
      line += (i ? "  " : "") + (number ? pad + row[i] : row[i] + pad);
    }
    line.resize(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace birkhoff::eval
