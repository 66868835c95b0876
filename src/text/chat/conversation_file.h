// What a conversation in a terminal reads and writes: histories, as lines {"messages": [...]} of a file that could be
// trained on, and lists of tools.
#pragma once
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace birkhoff::text::chat {

// The messages of the last line, or of all of a file that is one value. Throws Error that names the file.
std::vector<Value> read_last_conversation(const std::string& path);
// Adds a line to the file, which need not be there. Throws Error.
void append_conversation(const std::string& path, const std::vector<Value>& messages);

// A list of objects, in a file that holds that alone. Throws Error that names the file.
Value read_tools(const std::string& path);

}  // namespace birkhoff::text::chat
