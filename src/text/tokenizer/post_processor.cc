#include "text/tokenizer/post_processor.h"

#include "core/error.h"
#include "text/tokenizer/component.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

int32_t read_id(const Component& c, const char* field, const json& id) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) c.bad(field, "built of token ids");
  return id.get<int32_t>();
}

// {"SpecialToken": {"id": name}} and {"Sequence": {"id": "A"}} in order; the names stand in "special_tokens" with their
// ids.
void read_template(const Component& c, Affixes& out) {
  const json& special = c.field("special_tokens");
  std::vector<int32_t> before, after;
  bool seen = false;
  for (const json& item : c.list("single")) {
    if (!item.is_object() || item.size() != 1) c.bad("single", "a list of SpecialToken and Sequence");
    const auto it = item.items().begin();
    const json& value = it.value();
    if (!value.is_object() || !value.contains("id") || !value.at("id").is_string())
      c.bad("single", "a list of SpecialToken and Sequence with an \"id\"");
    if (it.key() == "Sequence") {
      if (seen) c.bad("single", "a template with one Sequence");
      seen = true;
      continue;
    }
    const std::string name = value.at("id").get<std::string>();
    if (it.key() != "SpecialToken" || !special.is_object() || !special.contains(name) ||
        !special.at(name).is_object() || !special.at(name).contains("ids") || !special.at(name).at("ids").is_array())
      c.bad("special_tokens", "an object with the ids of " + name);
    for (const json& id : special.at(name).at("ids"))
      (seen ? after : before).push_back(read_id(c, "special_tokens", id));
  }
  if (!seen) c.bad("single", "a template with one Sequence");
  out.before.insert(out.before.begin(), before.begin(), before.end());
  out.after.insert(out.after.end(), after.begin(), after.end());
}

void read_pair(const Component& c, const char* field, std::vector<int32_t>& out, bool at_end) {
  const json& pair = c.list(field);
  if (pair.size() != 2) c.bad(field, "[token, id]");
  out.insert(at_end ? out.end() : out.begin(), read_id(c, field, pair[1]));
}

void read(const json& entry, Affixes& out) {
  const Component c("post_processor", entry);
  if (c.type() == "Sequence") {
    for (const json& e : c.list("processors")) read(e, out);
  } else if (c.type() == "TemplateProcessing") {
    read_template(c, out);
  } else if (c.type() == "BertProcessing" || c.type() == "RobertaProcessing") {
    read_pair(c, "cls", out.before, false);
    read_pair(c, "sep", out.after, true);
  } else if (c.type() != "ByteLevel") {  // which only moves offsets
    c.unknown({"Sequence", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel"});
  }
}

}  // namespace

Affixes read_post_processor(const json& entry) {
  Affixes r;
  if (!entry.is_null()) read(entry, r);
  return r;
}

}  // namespace birkhoff::text
