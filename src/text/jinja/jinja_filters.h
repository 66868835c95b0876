// The filters come in three files: on text and numbers, on sequences, with patterns.
#pragma once
#include <string_view>
#include <unordered_map>

#include "text/jinja/jinja_interp.h"

namespace birkhoff::text::chat::jinja {

using BuiltinTable = std::unordered_map<std::string_view, BuiltinEntry>;
const BuiltinTable& sequence_filters();
const BuiltinTable& regex_filters();  // of the task dialect
// nullptr when the table has no such name.
const BuiltinEntry* look_up(const BuiltinTable& table, std::string_view name);

// Attribute path of map, sort, groupby, ...: "a.b.0" or an integer.
Value attribute_path(Interp& interp, Value v, const Value& path);
// Key that sorting without case compares by.
Value folded(Interp& interp, const Value& v, bool case_sensitive);
int64_t int_argument(Interp& interp, CallArgs& args, size_t place, std::string_view name, int64_t fallback);

}  // namespace birkhoff::text::chat::jinja
