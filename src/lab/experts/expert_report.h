// What birkhoff experts prints: its JSON, which the page draws too, and its tables.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "infer/text_model.h"
#include "lab/experts/expert_probe.h"
#include "lab/experts/expert_specialisation.h"

namespace birkhoff::lab {

// A token as text that can be read: white space as marks, bytes that are no characters as \xHH.
std::string readable_token(const infer::TextModel& text, int32_t id);

// {experts, active, domains: [{name, tokens, documents, units}], options: {...}, layers: [{layer, hashed,
// information_bits, shuffled: {mean, p95, max}, load: [domain][expert], telling: [expert][{token, id, bits, count}]}]}
nlohmann::json specialisation_json(const Specialisation& s, const SpecialisationOptions& o,
                                   const infer::TextModel& text);
// A line a layer: bits, shuffled bits, their difference.
std::string specialisation_table(const Specialisation& s);

// {disabled, replaced_shared, nats_per_token, nats_per_byte}
nlohmann::json probe_json(const model::RoutingProbe& p, const eval::Likelihood& loss);
// "3 disabled", "shared replaced".
std::string probe_name(const model::RoutingProbe& p);

}  // namespace birkhoff::lab
