// Standard input and output. Verbs print with stdio as they like; whether it arrived is seen here alone.
#pragma once
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace birkhoff::apps {

// What was printed did not arrive. No Error: nobody but main() can do anything about it.
struct OutputFailed {
  int error;  // errno; EPIPE: the reader has gone, which is no fault
};

// Before anything is opened: a standard stream that was closed is opened as one that holds nothing and takes nothing,
// so that no file gets its number.
void reserve_standard_streams();

// Writes what is buffered. Verbs that print as they go call it, so that they end with their reader; main() calls it
// after every verb. Throws OutputFailed.
void flush_output();
void write_line(std::string_view line);  // and a line end, to the buffer; throws OutputFailed once a flush failed

// The next line of standard input, without a byte order mark before the first; false at its end. Flushes first when it
// has to wait: the other side may do so too. Throws Error: it cannot be read.
bool next_line(std::string& line);

// Standard error is a terminal that a line can be written over on.
bool shows_bar();

// Says on stderr how far a model's weights are laid out or quantised while it is opened: on a terminal a line that is
// rewritten, elsewhere one that says what begins. Arguments: bytes so far, bytes in all.
std::function<void(int64_t, int64_t)> preparing_progress();

// A terminal that shows colours, unless NO_COLOR is set or TERM is dumb.
bool takes_colours(std::FILE* stream);

}  // namespace birkhoff::apps
