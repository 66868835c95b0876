#include "lab/compare/study.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "io/json_file.h"
#include "model/config/json_fields.h"
#include "model/config/presets.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

[[noreturn]] void bad_study(const std::string& where, const std::string& what,
                            const std::string& hint = "docs/compare.md describes study files") {
  throw Error("study", where + ": " + what, hint);
}

void known_fields(const std::string& where, const json& object, const std::vector<std::string>& known) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest(key, known);
    bad_study(where, "unknown field \"" + key + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
  }
}

template <class T>
void field(const std::string& where, const json& object, const char* key, bool right_type, T& out) {
  if (!object.contains(key)) return;
  if (!right_type)
    bad_study(where, std::string(key) + ": " + object[key].dump().substr(0, 60) + " is of the wrong type");
  out = object[key].get<T>();
}
void text_field(const std::string& where, const json& o, const char* key, std::string& out) {
  field(where, o, key, o.contains(key) && o[key].is_string(), out);
}
void flag_field(const std::string& where, const json& o, const char* key, bool& out) {
  field(where, o, key, o.contains(key) && o[key].is_boolean(), out);
}
void object_field(const std::string& where, const json& o, const char* key, json& out) {
  field(where, o, key, o.contains(key) && o[key].is_object(), out);
}

// Names become directories.
void check_names(const std::string& where, const std::vector<Variant>& variants) {
  if (variants.empty())
    bad_study(where, "no variants",
              "a study compares at least one; give \"variants\": [{\"name\": ..., \"set\": {...}}]");
  std::set<std::string> seen;
  for (const Variant& v : variants) {
    const bool control = std::any_of(v.name.begin(), v.name.end(), [](unsigned char c) { return c < 32; });
    if (v.name.empty() || v.name[0] == '.' || v.name.find('/') != std::string::npos || control || v.name.size() > 100)
      bad_study(where, "variant name \"" + v.name + "\" cannot name a directory",
                "use up to 100 letters, digits and the like; no slash, no dot in front");
    if (!seen.insert(v.name).second)
      bad_study(where, "two variants are named \"" + v.name + "\"", "names tell runs apart");
  }
}

Variant variant_of(const std::string& where, const json& o) {
  if (!o.is_object())
    bad_study(where, "a variant is an object with \"name\" and \"set\", not " + o.dump().substr(0, 60));
  known_fields(where, o, {"name", "group", "set"});
  Variant v;
  text_field(where, o, "name", v.name);
  text_field(where, o, "group", v.group);
  object_field(where, o, "set", v.set);
  return v;
}

Axes axes_of(const std::string& where, const json& o) {
  if (!o.is_object()) bad_study(where, "axes is an object with \"x\" and \"y\", not " + o.dump().substr(0, 60));
  known_fields(where, o, {"x", "y", "title", "x_title", "y_title", "log_x", "log_y"});
  Axes a;
  for (const auto& [key, out] :
       {std::pair{"x", &a.x}, {"y", &a.y}, {"title", &a.title}, {"x_title", &a.x_title}, {"y_title", &a.y_title}})
    text_field(where, o, key, *out);
  flag_field(where, o, "log_x", a.log_x);
  flag_field(where, o, "log_y", a.log_y);
  if (a.x.empty() || a.y.empty()) bad_study(where, "axes needs \"x\" and \"y\"");
  return a;
}

// "a,b,[1,2]" -> a | b | [1,2]
std::vector<std::string> split_values(const std::string& text) {
  std::vector<std::string> values(1);
  int depth = 0;
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (!quoted) depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    if (c == ',' && depth == 0 && !quoted)
      values.emplace_back();
    else
      values.back() += c;
  }
  return values;
}

}  // namespace

Study read_study(const std::string& path) {
  const json o = io::read_json(path);
  if (!o.is_object()) bad_study(path, "a study is a JSON object");
  known_fields(path, o,
               {"claim", "source", "preset", "steps", "seeds", "data", "set", "variants", "axes", "best_of_groups"});
  Study s;
  s.name = fs::path(path).stem().string();
  text_field(path, o, "claim", s.claim);
  text_field(path, o, "source", s.source);
  text_field(path, o, "preset", s.preset);
  object_field(path, o, "set", s.set);
  flag_field(path, o, "best_of_groups", s.best_of_groups);
  field(path, o, "seeds", o.contains("seeds") && o["seeds"].is_number_integer(), s.seeds);
  if (o.contains("steps")) s.set["steps"] = o["steps"];
  if (!s.preset.empty()) s.base = json::parse(model::find_preset(s.preset).json);
  const json data = o.value("data", json::array());
  if (!data.is_array()) bad_study(path, "data is a list");
  for (const json& d : data) {
    if (!d.is_string()) bad_study(path, "data: " + d.dump().substr(0, 60) + " is no path");
    const fs::path given = d.get<std::string>();
    s.data.push_back((given.is_absolute() ? given : fs::path(path).parent_path() / given).lexically_normal().string());
  }
  const json variants = o.value("variants", json::array());
  if (!variants.is_array()) bad_study(path, "variants is a list");
  for (const json& v : variants) s.variants.push_back(variant_of(path, v));
  check_names(path, s.variants);
  if (o.contains("axes")) s.axes = axes_of(path, o["axes"]);
  return s;
}

Study grid_study(const json& base, const std::vector<std::string>& vary) {
  Study s;
  s.name = "grid";
  s.base = base;
  s.variants.emplace_back();
  for (const std::string& text : vary) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw Error("compare", "--vary " + text + ": expected key=a,b,...", "for example --vary residual=plain,mhc",
                  ExitCode::usage);
    std::vector<Variant> wider;
    for (const Variant& v : s.variants)
      for (const std::string& value : split_values(text.substr(equals + 1))) {
        const auto [key, parsed] = model::parse_setting(text.substr(0, equals + 1) + value);
        if (v.set.contains(key))
          throw Error("compare", "--vary " + key + " is given twice",
                      "write its values in one list: --vary " + key + "=a,b", ExitCode::usage);
        Variant w = v;
        w.name += (w.name.empty() ? "" : " ") + key + "=" + value;
        w.set[key] = parsed;
        wider.push_back(w);
      }
    s.variants = wider;
  }
  check_names("--vary", s.variants);
  return s;
}

namespace {

// What every run has of its own cannot be set for all: seeds, and what the variants differ in.
void require_one_meaning(const Study& study, const std::vector<std::string>& overrides) {
  const auto refuse_seed = [](const json& set, const std::string& where) {
    if (set.contains("seed"))
      throw Error("compare", where + " sets seed, which runs over 1 to the number of seeds",
                  "leave it out, and say how many with --seeds", ExitCode::usage);
  };
  refuse_seed(study.set, "the study");
  json given = json::object();
  for (const std::string& text : overrides) {
    const auto [key, value] = model::parse_setting(text);
    given[key] = value;
  }
  refuse_seed(given, "--set");
  for (const Variant& v : study.variants) {
    refuse_seed(v.set, "variant \"" + v.name + "\"");
    for (const auto& [key, value] : given.items())
      if (v.set.contains(key))
        throw Error("compare",
                    "--set " + key + "=" + value.dump() + ": variant \"" + v.name + "\" has " + key + " " +
                        v.set[key].dump() + " of its own",
                    "variants differ in it; leave --set " + key + " out", ExitCode::usage);
  }
}

}  // namespace

std::vector<RunSpec> runs_of(const Study& study, const std::string& out, const std::vector<std::string>& overrides) {
  if (study.seeds < 1)
    throw Error("compare", "seeds: must be at least 1, is " + std::to_string(study.seeds),
                "three give an interval worth the name", ExitCode::usage);
  require_one_meaning(study, overrides);
  std::vector<RunSpec> runs;
  for (int64_t seed = 1; seed <= study.seeds; ++seed)
    for (size_t v = 0; v < study.variants.size(); ++v) {
      RunSpec r;
      r.variant = v;
      r.seed = seed;
      r.directory = out + "/runs/" + study.variants[v].name + "/seed-" + std::to_string(seed);
      r.settings = study.base;
      r.settings.update(study.set);
      r.settings.update(study.variants[v].set);
      for (const std::string& text : overrides) {
        const auto [key, value] = model::parse_setting(text);
        r.settings[key] = value;
      }
      r.settings["seed"] = seed;
      try {
        r.config = train::make_run_config(r.settings, {});
      } catch (const Error& e) {
        throw Error("study", "variant \"" + study.variants[v].name + "\": " + e.what(), e.hint(), e.code());
      }
      runs.push_back(std::move(r));
    }
  return runs;
}

json to_json(const Study& study) {
  json o{{"name", study.name},
         {"claim", study.claim},
         {"source", study.source},
         {"preset", study.preset},
         {"set", study.set},
         {"seeds", study.seeds},
         {"best_of_groups", study.best_of_groups}};
  o["data"] = json::array();
  for (const std::string& d : study.data) o["data"].push_back(fs::path(d).filename().string());
  o["variants"] = json::array();
  for (const Variant& v : study.variants)
    o["variants"].push_back({{"name", v.name}, {"group", v.group}, {"set", v.set}});
  if (const auto& a = study.axes)
    o["axes"] = {
        {"x", a->x},         {"y", a->y},        {"title", a->title}, {"x_title", a->x_title}, {"y_title", a->y_title},
        {"log_x", a->log_x}, {"log_y", a->log_y}};
  return o;
}

}  // namespace birkhoff::lab
