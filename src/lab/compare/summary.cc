#include "lab/compare/summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "lab/compare/results.h"
#include "lab/compare/statistics.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;

json finite(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }

// {seed: figure} of the finished runs.
std::map<int64_t, double> by_seed(const json& variant, const std::string& key) {
  std::map<int64_t, double> out;
  for (const json& r : variant["runs"])
    if (r["status"] == "done" && r["figures"].contains(key) && r["figures"][key].is_number())
      out[r["seed"]] = r["figures"][key];
  return out;
}

json difference_of(const json& first, const json& variant) {
  const auto a = by_seed(first, "val_loss"), b = by_seed(variant, "val_loss");
  std::vector<double> left, right;
  for (const auto& [seed, value] : a)
    if (const auto it = b.find(seed); it != b.end()) {
      left.push_back(value);
      right.push_back(it->second);
    }
  const Difference d = paired_difference(left, right);
  return {{"n", d.mean.n},
          {"mean", finite(d.mean.mean)},
          {"error", finite(d.mean.error)},
          {"low", finite(d.low)},
          {"high", finite(d.high)}};
}

json extreme(const json& variant, const std::string& key, bool largest) {
  json found;
  for (const json& r : variant["runs"]) {
    if (!r.contains("figures") || !r["figures"].contains(key) || !r["figures"][key].is_number()) continue;
    if (found.is_null() || (largest ? r["figures"][key] > found : r["figures"][key] < found)) found = r["figures"][key];
  }
  return found;
}

json row_of(const json& results, const json& variant) {
  json row{{"name", variant["name"]}, {"group", variant["group"]}};
  int64_t done = 0, failed = 0;
  for (const json& r : variant["runs"]) {
    done += r["status"] == "done";
    failed += r["status"] == "failed";
  }
  row["seeds"] = done;
  row["failed"] = failed;
  for (const std::string& key : figure_names())
    if (const json m = figure_mean(variant, key); !m.is_null()) row[key] = m;
  row["gain_max_token"] = extreme(variant, "gain_max_token", true);
  row["gain_min_token"] = extreme(variant, "gain_min_token", false);
  if (&variant != &results["variants"][0]) row["difference"] = difference_of(results["variants"][0], variant);
  return row;
}

json best_of_groups(const json& results) {
  std::vector<std::string> groups;
  std::map<std::string, const json*> best;
  for (const json& v : results["variants"]) {
    const std::string group = v["group"];
    const json loss = figure_mean(v, "val_loss");
    if (loss.is_null()) continue;
    if (!best.count(group)) groups.push_back(group);
    const json* so_far = best[group];
    if (!so_far || loss["mean"] < figure_mean(*so_far, "val_loss")["mean"]) best[group] = &v;
  }
  json out = json::array();
  for (const std::string& g : groups) {
    json row{{"group", g}, {"variant", (*best[g])["name"]}, {"val_loss", figure_mean(*best[g], "val_loss")}};
    if (g != groups[0]) row["difference"] = difference_of(*best[groups[0]], *best[g]);
    out.push_back(row);
  }
  return out;
}

std::string number_text(const char* format, double v) {
  char s[64];
  std::snprintf(s, sizeof s, format, v);
  return s;
}
std::string mean_text(const json& row, const char* key, const char* format) {
  return row.contains(key) && row[key].is_object() && row[key]["mean"].is_number()
             ? number_text(format, row[key]["mean"].get<double>())
             : "-";
}
std::string value_text(const json& v, const char* format) {
  return v.is_number() ? number_text(format, v.get<double>()) : "-";
}

std::string loss_text(const json& m) {
  if (m.is_null() || !m["mean"].is_number()) return "-";
  return number_text("%.4f", m["mean"].get<double>()) +
         (m["error"].is_number() ? number_text(" +- %.4f", m["error"].get<double>()) : "");
}
std::string difference_text(const json& d) {
  if (!d["mean"].is_number()) return "-";
  std::string s = number_text("%+.4f", d["mean"].get<double>());
  if (d["low"].is_number())
    s += number_text(" [%+.4f,", d["low"].get<double>()) + number_text(" %+.4f]", d["high"].get<double>());
  return s;
}

// Columns as wide as their widest cell; the first is to the left, the others to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width(rows[0].size(), 0);
  for (const auto& r : rows)
    for (size_t c = 0; c < r.size(); ++c) width[c] = std::max(width[c], r[c].size());
  std::string out;
  for (const auto& r : rows) {
    for (size_t c = 0; c < r.size(); ++c) {
      const std::string space(width[c] - r[c].size(), ' ');
      out += c == 0 ? r[c] + space : "  " + space + r[c];
    }
    out += "\n";
  }
  return out;
}

}  // namespace

json figure_mean(const json& variant, const std::string& key) {
  std::vector<double> values;
  for (const auto& [seed, v] : by_seed(variant, key)) values.push_back(v);
  const Mean m = mean_of(values);
  if (m.n == 0) return nullptr;
  return {{"n", m.n}, {"mean", finite(m.mean)}, {"error", finite(m.error)}};
}

json summarise(const json& results) {
  json rows = json::array();
  for (const json& v : results["variants"]) rows.push_back(row_of(results, v));
  json out{{"variants", rows}};
  if (results["study"].value("best_of_groups", false)) out["best"] = best_of_groups(results);
  return out;
}

std::string table_text(const json& results, const json& summary) {
  const auto any = [&](const char* key) {
    return std::any_of(summary["variants"].begin(), summary["variants"].end(),
                       [&](const json& r) { return r.contains(key) && !r[key].is_null(); });
  };
  const bool gains = any("gain_max_token"), loads = any("maxvio");
  std::vector<std::string> head = {
      "variant",           "seeds",   "val loss (" + results["unit"].get<std::string>() + ")",
      "difference [95 %]", "ms/step", "MiB"};
  if (gains) head.insert(head.end(), {"max gain", "of a token"});
  if (loads) head.push_back("MaxVio");
  std::vector<std::vector<std::string>> rows = {head};
  for (const json& r : summary["variants"]) {
    const int64_t failed = r["failed"];
    rows.push_back({r["name"], r["seeds"].dump() + (failed ? " (" + std::to_string(failed) + " failed)" : ""),
                    loss_text(r.value("val_loss", json())),
                    r.contains("difference") ? difference_text(r["difference"]) : "", mean_text(r, "step_ms", "%.1f"),
                    mean_text(r, "rss_mib", "%.0f")});
    if (gains)
      rows.back().insert(rows.back().end(),
                         {mean_text(r, "gain_max", "%.3g"), value_text(r["gain_max_token"], "%.3g")});
    if (loads) rows.back().push_back(mean_text(r, "maxvio", "%.3f"));
  }
  std::string out = aligned(rows);
  if (!summary.contains("best")) return out;
  rows = {{"best of group", "variant", "val loss", "difference [95 %]"}};
  for (const json& b : summary["best"])
    rows.push_back({b["group"], b["variant"], loss_text(b["val_loss"]),
                    b.contains("difference") ? difference_text(b["difference"]) : ""});
  return out + "\n" + aligned(rows);
}

}  // namespace birkhoff::lab
