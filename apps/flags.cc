#include "apps/flags.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <locale>
#include <sstream>

#include "core/error.h"
#include "core/names.h"

namespace birkhoff::apps {
namespace {

constexpr int64_t kMaxThreads = 1024;

// Decimal digits and nothing else: neither "0x10" nor "inf", nothing before or after, no minus where there is no such
// number.
template <class T>
bool parse(const std::string& text, T& value) {
  if (text.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  if (std::is_unsigned_v<T> && text.find('-') != std::string::npos) return false;
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  return in >> value && in.peek() == std::istringstream::traits_type::eof();
}

template <class T>
CLI::Validator number(T low, T high, const char* kind) {
  std::ostringstream allowed;
  allowed << kind;
  if (std::is_unsigned_v<T> || (low > std::numeric_limits<T>::lowest() && high < std::numeric_limits<T>::max()))
    allowed << " from " << low << " to " << high;
  else if (low > std::numeric_limits<T>::lowest())
    allowed << ", at least " << low;
  const std::string text = allowed.str();
  return CLI::Validator(
      [low, high, text](const std::string& given) -> std::string {
        T value{};
        if (parse(given, value) && value >= low && value <= high) return "";
        return "must be " + text + ", is " + shortened("\"" + given + "\"");
      },
      "");
}

// "42=-1.5"
std::pair<int32_t, double> token_bias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<int32_t, double> bias;
  if (equals == std::string::npos || !parse(text.substr(0, equals), bias.first) ||
      !parse(text.substr(equals + 1), bias.second))
    throw CLI::ValidationError("--logit-bias", "must be ID=BIAS, such as 42=-1.5, is " + shortened("\"" + text + "\""));
  return bias;
}

// Options that say how to work are read from the environment; those that say what to read and write are not.
bool reads_environment(const CLI::Option& o, bool is_number) {
  const std::string& name = o.get_single_name();
  return !o.get_positional() && !o.get_required() &&
         (is_number || name == "dtype" || name == "mla" || name == "token-cache" || name == "weights" ||
          name == "head-weights" || name == "cache" || name == "cache-type" || name == "draft-by");
}

std::string variable_of(const std::string& name) {
  std::string variable = "BIRKHOFF_";
  for (const char c : name) variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return variable;
}

void finish_option(CLI::Option& o) {
  const std::string name = o.get_single_name(), type = o.get_type_name();
  const auto is = [&](const char* kind) { return type.rfind(kind, 0) == 0; };
  const bool is_number = is("INT") || is("UINT") || is("FLOAT");
  if (name == "threads") {
    o.check(whole_number(1, kMaxThreads));
  } else if (is("INT")) {
    o.check(whole_number(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()));
  } else if (is("UINT")) {
    o.check(number<uint64_t>(0, std::numeric_limits<uint64_t>::max(), "a whole number"));
  } else if (is("FLOAT")) {
    o.check(real_number(std::numeric_limits<double>::lowest(), std::numeric_limits<double>::max()));
  }
  // One value a flag, however often: the library's "TEXT ..." would promise a list.
  if (o.get_expected_max() == CLI::detail::expected_max_vector_size && !o.get_allow_extra_args())
    o.option_text((name == "set"          ? "KEY=VALUE"
                   : name == "logit-bias" ? "ID=BIAS"
                                          : type) +
                  std::string(o.get_required() ? " REQUIRED" : ""));
  if (reads_environment(o, is_number)) o.envname(variable_of(name));
}

}  // namespace

CLI::Validator whole_number(int64_t low, int64_t high) { return number<int64_t>(low, high, "a whole number"); }
CLI::Validator real_number(double low, double high) { return number<double>(low, high, "a number"); }

void add_sampling(CLI::App& verb, infer::SamplerOptions& o, infer::LogitsOptions& logits) {
  verb.add_option("--temp", o.temperature, "temperature; 0 takes the most probable")->capture_default_str();
  verb.add_option("--top-k", o.top_k, "0: all")->capture_default_str();
  verb.add_option("--top-p", o.top_p)->capture_default_str();
  verb.add_option("--min-p", o.min_p)->capture_default_str();
  verb.add_option("--typical-p", o.typical_p, "the most typical tokens of this probability; 1: all")
      ->capture_default_str();
  verb.add_option("--repetition-penalty", logits.repetition_penalty, "above 1: ids that were there are less probable")
      ->capture_default_str();
  verb.add_option("--presence-penalty", logits.presence_penalty, "taken from the logits of ids in the answer")
      ->capture_default_str();
  verb.add_option("--frequency-penalty", logits.frequency_penalty, "the same, as often as they are there")
      ->capture_default_str();
  const auto add_bias = [&logits](const std::vector<std::string>& given) {
    for (const std::string& text : given) logits.bias.push_back(token_bias(text));
  };
  verb.add_option_function<std::vector<std::string>>("--logit-bias", add_bias,
                                                     "added to the logit of an id, -100 to 100; repeatable")
      ->allow_extra_args(false);
  verb.add_option("--seed", o.seed)->capture_default_str();
}

void DraftFlags::add(CLI::App& verb) {
  verb.add_option("--draft", most,
                  "tokens to guess at a time and read at once: the same text, sooner where they are right")
      ->check(whole_number(0, 16))
      ->capture_default_str();
  verb.add_option("--draft-by", by,
                  "ngram: what followed the same words before; mtp: the model's prediction modules, where it has them")
      ->capture_default_str();
}

infer::DraftBy DraftFlags::drafter() const {
  if (const auto named = find_named<infer::DraftBy>(by)) return *named;
  throw Error("--draft-by", "unknown drafter \"" + by + "\"", "one of ngram, mtp", ExitCode::usage);
}

void DraftFlags::apply(infer::EngineOptions& options) const {
  options.caches.predictors = drafter() == infer::DraftBy::mtp && most > 0;
}

void say_accepted(int64_t drafted, int64_t accepted) {
  if (drafted > 0)
    std::fprintf(stderr, "birkhoff: %lld of %lld drafted tokens were accepted\n", static_cast<long long>(accepted),
                 static_cast<long long>(drafted));
}

void finish_options(CLI::App& verb) {
  for (CLI::Option* o : verb.get_options()) finish_option(*o);
}

std::string variable_behind(const CLI::App& verb, const std::string& complaint) {
  for (const CLI::Option* o : verb.get_options()) {
    const char* value = o->get_envname().empty() ? nullptr : std::getenv(o->get_envname().c_str());
    if (value && *value && complaint.rfind("--" + o->get_single_name() + ":", 0) == 0) return o->get_envname();
  }
  return "";
}

void WeightFlags::add_formats(CLI::App& verb) {
  verb.add_option("--weights", matrices, "auto, stored, q8 or q4: what matrices are in memory")->capture_default_str();
  verb.add_option("--head-weights", head, "the same of the output matrix; default: as --weights, q8 beside q4");
}

void WeightFlags::add(CLI::App& verb) {
  add_formats(verb);
  verb.add_option("--cache", cache, "directory that keeps quantised weights for the next time");
  verb.add_flag("--stream", stream, "weights may be more than memory: they are read from the disk as they are needed");
}

void WeightFlags::apply(infer::EngineOptions& options) const {
  options.weights = formats();
  options.panels = cache;
  options.stream = stream;
}

model::WeightFormats WeightFlags::formats() const { return model::WeightFormats::named(matrices, head, "--"); }

void CacheFlags::add(CLI::App& verb) {
  verb.add_option("--cache-type", type, "fp32, bf16 or int8: what is kept of earlier tokens; default: the number type");
  verb.add_option("--cache-memory", mib, "MiB that it may take; default: a quarter of the machine's memory")
      ->check(whole_number(1, int64_t{1} << 40));
  mla_flag =
      verb.add_option(
              "--mla", mla,
              "how models with latent attention read what they keep: auto (latents: prompts expanded, generated "
              "tokens absorbed), expanded (keys and values: more memory, the bits of training), absorbed (latents)")
          ->capture_default_str();
}

void CacheFlags::apply(infer::EngineOptions& o) const {
  o.caches.bytes = mib << 20;
  const auto how = find_named<model::LatentAttention>(mla);
  if (!how) throw Error("--mla", "unknown form \"" + mla + "\"", "one of auto, expanded, absorbed", ExitCode::usage);
  o.latent_attention = *how;
  if (type.empty()) return;
  o.caches.type = ops::find_cache_type(type);
  if (!o.caches.type)
    throw Error("--cache-type", "unknown type \"" + type + "\"", "one of fp32, bf16, int8", ExitCode::usage);
}

}  // namespace birkhoff::apps
