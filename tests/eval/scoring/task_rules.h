// "filters" and "metrics" of the tasks whose answers the tests judge.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "eval/scoring/scoring.h"

namespace birkhoff::test {

// name: of a task, or what precedes the part in the names of tasks with parts.
inline eval::Scoring rules_of(const std::string& name) {
  static const nlohmann::json all = nlohmann::json::parse(R"json({
    "gsm8k_cot": {"filters": [{"name": "strict-match", "steps": [{"regex": "The answer is (\\-?[0-9\\.\\,]+)."}]},
                              {"name": "flexible-extract", "steps": [{"regex": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "pick": "last"}]}],
                  "metrics": [{"name": "exact_match", "ignore_case": true, "delete": [",", "\\$", "(?s).*#### ", "\\.$"]}]},
    "gsm8k": {"filters": [{"name": "strict-match", "steps": [{"regex": "#### (\\-?[0-9\\.\\,]+)"}]},
                          {"name": "flexible-extract", "steps": [{"regex": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "pick": "last"}]}],
              "metrics": [{"name": "exact_match", "ignore_case": true, "delete": [",", "\\$", "(?s).*#### ", "\\.$"]}]},
    "bbh_cot_fewshot": {"filters": [{"name": "get-answer", "steps": [{"regex": "(?<=the answer is )(.*)(?=.)"}]}],
                        "metrics": [{"name": "exact_match"}]},
    "drop": {"metrics": [{"name": "drop"}]},
    "nq_open": {"filters": [{"name": "remove_whitespace", "steps": ["strip"]}],
                "metrics": [{"name": "exact_match", "delete": ["\\b(?:The |the |An |A |The |a |an )"],
                             "ignore_case": true, "ignore_punctuation": true}]},
    "triviaqa": {"filters": [{"name": "remove_whitespace", "steps": ["strip"]}],
                 "metrics": [{"name": "exact_match", "ignore_case": true, "ignore_punctuation": true}]},
    "hendrycks_math": {"metrics": [{"name": "hendrycks_math"}]},
    "minerva_math": {"metrics": [{"name": "minerva_math"}]},
    "humaneval": {"filters": [{"name": "create_test", "steps": ["prompt"]}], "metrics": [{"name": "pass@1"}]},
    "mbpp": {"metrics": [{"name": "pass_at_1"}]},
    "mmlu": {"metrics": [{"name": "acc"}]},
    "hellaswag": {"metrics": [{"name": "acc"}, {"name": "acc_norm"}]},
    "deepseek_math": {"filters": [{"name": "none", "steps": ["deepseek_math"]}], "metrics": [{"name": "deepseek_math"}]}
  })json");
  std::string best;
  for (const auto& [key, rules] : all.items())
    if (name.starts_with(key) && key.size() > best.size()) best = key;
  return eval::Scoring::read(all.at(best), best);
}

}  // namespace birkhoff::test
