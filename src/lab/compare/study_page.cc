#include "lab/compare/study_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "lab/compare/results.h"
#include "lab/compare/statistics.h"
#include "lab/compare/summary.h"
#include "report/run_data.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
using report::number;

Curve zipped(const json& x, const json& y) {
  Curve out;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (x[i].is_number() && y[i].is_number()) out.emplace_back(x[i].get<double>(), y[i].get<double>());
  return out;
}

Curve loss_of(const json& run) {
  return run.contains("curves") ? zipped(run["curves"]["step"], run["curves"]["loss"]) : Curve{};
}
// Means of consecutive fours: single points of a training loss differ by chance more than variants do.
Curve coarse_loss_of(const json& run) {
  Curve out;
  double x = 0, y = 0;
  int n = 0;
  for (const auto& [step, loss] : loss_of(run)) {
    x += step;
    y += loss;
    if (++n < 4) continue;
    out.emplace_back(x / n, y / n);
    x = y = n = 0;
  }
  return out;
}
Curve maxvio_of(const json& run) {
  return run.contains("maxvio") ? zipped(run["maxvio"]["step"], run["maxvio"]["mean"]) : Curve{};
}
Curve validation_of(const json& run) {
  Curve out;
  for (const json& p : run.value("validation", json::array()))
    if (p[1].is_number()) out.emplace_back(p[0].get<double>(), p[1].get<double>());
  return out;
}

// The curves of the runs that got to their end, empty ones left out.
std::vector<Curve> finished(const json& variant, const std::function<Curve(const json&)>& curve) {
  std::vector<Curve> out;
  for (const json& r : variant["runs"])
    if (r["status"] == "done")
      if (Curve c = curve(r); !c.empty()) out.push_back(std::move(c));
  return out;
}

// {step: [value of each curve]} where every curve has the step.
std::map<double, std::vector<double>> common_steps(const std::vector<Curve>& curves) {
  std::map<double, std::vector<double>> at;
  for (const Curve& c : curves)
    for (const auto& [x, y] : c) at[x].push_back(y);
  for (auto it = at.begin(); it != at.end();) it = it->second.size() == curves.size() ? std::next(it) : at.erase(it);
  return at;
}

json band(const std::map<double, std::vector<double>>& at, const std::function<double(const Mean&)>& reach) {
  if (at.empty()) return nullptr;
  json out;
  for (const auto& [x, values] : at) {
    const Mean m = mean_of(values);
    out["step"].push_back(number(x));
    out["mean"].push_back(number(m.mean));
    if (m.n < 2) continue;
    out["low"].push_back(number(m.mean - reach(m)));
    out["high"].push_back(number(m.mean + reach(m)));
  }
  return out;
}

// Of the seeds that both finished, at equal steps.
json difference_over_time(const json& first, const json& variant, const std::function<Curve(const json&)>& curve) {
  std::map<int64_t, Curve> a;
  for (const json& r : first["runs"])
    if (r["status"] == "done") a[r["seed"]] = curve(r);
  std::vector<Curve> left, right;
  for (const json& r : variant["runs"])
    if (r["status"] == "done" && a.count(r["seed"])) {
      left.push_back(a[r["seed"]]);
      right.push_back(curve(r));
    }
  return difference_band(left, right);
}

// Means over the runs of the token means, extremes over the runs of the extremes; runs that failed count as far as they
// came.
json gains_of(const json& variant) {
  json out;
  for (const char* way : {"forward", "backward"}) {
    std::map<double, std::map<std::string, std::vector<double>>> at;
    for (const json& r : variant["runs"]) {
      if (!r.contains("gains")) continue;
      for (const char* key : {"max_mean", "max", "min_mean", "min"})
        for (const auto& [x, y] : zipped(r["gains"]["step"], r["gains"][way][key])) at[x][key].push_back(y);
    }
    for (auto& [x, v] : at) {
      if (v.size() < 4) continue;
      out[way]["step"].push_back(number(x));
      out[way]["max_mean"].push_back(number(mean_of(v["max_mean"]).mean));
      out[way]["min_mean"].push_back(number(mean_of(v["min_mean"]).mean));
      out[way]["max"].push_back(number(*std::max_element(v["max"].begin(), v["max"].end())));
      out[way]["min"].push_back(number(*std::min_element(v["min"].begin(), v["min"].end())));
    }
  }
  return out;
}

// Gains of the single sites at the end, mean over the finished runs.
json sites_of(const json& variant) {
  json out;
  for (const char* way : {"forward", "backward"}) {
    std::vector<Curve> curves;
    for (const json& r : variant["runs"]) {
      if (!r.contains("gains") || r["status"] != "done") continue;
      const json& site = r["gains"][way]["site"];
      Curve c;
      for (size_t i = 0; i < site.size(); ++i)
        if (site[i].is_number()) c.emplace_back(static_cast<double>(i + 1), site[i].get<double>());
      curves.push_back(c);
    }
    if (!curves.empty()) out[way] = band_of(curves)["mean"];
  }
  return out;
}

json variant_page(const json& results, size_t v) {
  const json& variant = results["variants"][v];
  json out{{"name", variant["name"]}, {"group", variant["group"]}, {"differing", variant["differing"]}};
  const auto put = [&](const char* key, const json& value) {
    if (!value.is_null()) out[key] = value;
  };
  put("loss", band_of(finished(variant, loss_of)));
  put("validation", band_of(finished(variant, validation_of)));
  put("maxvio", band_of(finished(variant, maxvio_of)));
  put("gains", gains_of(variant));
  put("sites", sites_of(variant));
  if (v > 0) {
    put("difference", difference_over_time(results["variants"][0], variant, coarse_loss_of));
    put("validation_difference", difference_over_time(results["variants"][0], variant, validation_of));
  }
  for (const json& r : variant["runs"]) {
    if (r.contains("load")) out["load"] = r["load"];
    if (r["status"] == "failed")
      out["failed"].push_back({{"seed", r["seed"]}, {"message", r.value("message", "")}, {"loss", loss_of(r)}});
  }
  return out;
}

// A figure's mean and error, or a setting's value.
json coordinate(const json& results, const json& variant, const std::string& key) {
  if (const json m = figure_mean(variant, key); !m.is_null()) return m;
  for (const json& settings : {variant["differing"], results["settings"]})
    if (settings.contains(key) && settings[key].is_number())
      return {{"n", 1}, {"mean", settings[key]}, {"error", nullptr}};
  return nullptr;
}

json points_of(const json& results) {
  if (!results["study"].contains("axes")) return nullptr;
  const json& axes = results["study"]["axes"];
  json out = axes;
  for (size_t v = 0; v < results["variants"].size(); ++v) {
    const json& variant = results["variants"][v];
    const json x = coordinate(results, variant, axes["x"]), y = coordinate(results, variant, axes["y"]);
    if (!x.is_null() && !y.is_null())
      out["points"].push_back({{"variant", v}, {"group", variant["group"]}, {"x", x}, {"y", y}});
  }
  return out.contains("points") ? out : json(nullptr);
}

}  // namespace

json band_of(const std::vector<Curve>& curves) {
  return band(common_steps(curves), [](const Mean& m) { return m.error; });
}

json difference_band(const std::vector<Curve>& a, const std::vector<Curve>& b) {
  std::vector<Curve> differences;
  for (size_t i = 0; i < a.size(); ++i) {
    std::map<double, double> left(a[i].begin(), a[i].end());
    Curve d;
    for (const auto& [x, y] : b[i])
      if (const auto it = left.find(x); it != left.end()) d.emplace_back(x, y - it->second);
    differences.push_back(d);
  }
  return band(common_steps(differences),
              [](const Mean& m) { return student_t_quantile(0.975, static_cast<double>(m.n - 1)) * m.error; });
}

json study_page(const json& results, const json& summary) {
  json page;
  for (const char* key : {"study", "unit", "command", "time", "machine", "settings"})
    page[key] = results.value(key, json());
  page["summary"] = summary;
  page["variants"] = json::array();
  for (size_t v = 0; v < results["variants"].size(); ++v) page["variants"].push_back(variant_page(results, v));
  if (const json points = points_of(results); !points.is_null()) page["points"] = points;
  return page;
}

}  // namespace birkhoff::lab
