// A line on stderr that is rewritten on a terminal; plain lines follow one another elsewhere.
#pragma once
#include <string>

namespace birkhoff::train {

// Columns of the terminal behind stderr; 80 where it does not say.
int terminal_columns();

class StatusLine {
 public:
  StatusLine(bool terminal, bool quiet) : terminal_(terminal), quiet_(quiet) {}
  ~StatusLine() { clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  bool terminal() const { return terminal_; }
  bool quiet() const { return quiet_; }
  // Shows a line in the place of the last one, as much of it as there is room for.
  void show(const std::string& line);
  // Puts a line that stays before it, "birkhoff: text". Nothing when quiet.
  void message(const std::string& text);

 private:
  void clear();
  const bool terminal_, quiet_;
  bool open_ = false;
};

}  // namespace birkhoff::train
