#include "lab/experts/expert_report.h"

#include <cmath>
#include <cstdio>

#include "text/unicode/utf8.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;

double rounded(double v, double digits) { return std::round(v * digits) / digits; }

std::string bytes_of(const infer::TextModel& text, int32_t id) {
  if (!text.tokenizer()) return id < 256 ? std::string(1, static_cast<char>(id)) : "";
  std::string bytes;
  if (text.tokenizer()->is_special(id) || !text.tokenizer()->append_bytes(id, bytes))
    bytes = text.tokenizer()->token(id).value_or("");
  return bytes;
}

json layer_json(const LayerSpecialisation& l, const infer::TextModel& text) {
  json load = json::array(), telling = json::array();
  for (const auto& row : l.load) {
    load.push_back(json::array());
    for (const double v : row) load.back().push_back(rounded(v, 1e4));
  }
  for (const auto& list : l.telling) {
    telling.push_back(json::array());
    for (const TellingToken& t : list)
      telling.back().push_back(
          {{"token", readable_token(text, t.id)}, {"id", t.id}, {"bits", rounded(t.bits, 1e3)}, {"count", t.count}});
  }
  return {{"layer", l.layer},
          {"hashed", l.hashed},
          {"information_bits", l.bits},
          {"shuffled", {{"mean", l.shuffled.mean}, {"p95", l.shuffled.high}, {"max", l.shuffled.max}}},
          {"load", load},
          {"telling", telling}};
}

}  // namespace

std::string readable_token(const infer::TextModel& text, int32_t id) {
  const std::string bytes = bytes_of(text, id);
  if (bytes.empty()) return "id " + std::to_string(id);
  const bool whole = text::first_invalid(bytes) == bytes.size();
  std::string out;
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02X", b);
    out += c == ' '                                         ? "\u2423"
           : c == '\n'                                      ? "\u21B5"
           : c == '\t'                                      ? "\u21E5"
           : b < 0x20 || b == 0x7f || (b >= 0x80 && !whole) ? std::string(hex)
                                                            : std::string(1, c);
  }
  return out;
}

json specialisation_json(const Specialisation& s, const SpecialisationOptions& o, const infer::TextModel& text) {
  json domains = json::array(), layers = json::array();
  for (const DomainSize& d : s.domains)
    domains.push_back({{"name", d.name}, {"tokens", d.tokens}, {"documents", d.documents}, {"units", d.units}});
  for (const LayerSpecialisation& l : s.layers) layers.push_back(layer_json(l, text));
  return {{"experts", s.experts},
          {"active", s.active},
          {"domains", domains},
          {"layers", layers},
          {"options",
           {{"validation", o.validation},
            {"unit_tokens", o.unit_tokens},
            {"shuffles", o.shuffles},
            {"seed", o.seed},
            {"min_count", o.min_count}}}};
}

std::string specialisation_table(const Specialisation& s) {
  std::string out = "layer   I(expert, domain)   shuffled: mean     95 %      max   above the mean   (bits)\n";
  for (const LayerSpecialisation& l : s.layers) {
    char line[128];
    std::snprintf(line, sizeof line, "%5lld   %17.4f   %14.4f %8.4f %8.4f   %14.4f%s\n",
                  static_cast<long long>(l.layer), l.bits, l.shuffled.mean, l.shuffled.high, l.shuffled.max, l.excess(),
                  l.hashed ? "   by table" : "");
    out += line;
  }
  return out;
}

json probe_json(const model::RoutingProbe& p, const eval::Likelihood& loss) {
  return {{"disabled", p.masked},
          {"replaced_shared", p.replace_shared},
          {"nats_per_token", loss.nats_per_token()},
          {"nats_per_byte", loss.nats_per_byte()}};
}

std::string probe_name(const model::RoutingProbe& p) {
  return p.replace_shared ? "shared replaced" : std::to_string(p.masked) + " disabled";
}

}  // namespace birkhoff::lab
