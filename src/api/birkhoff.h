// Birkhoff as a library: a model that reads and writes. This header needs no other of the project, and nothing behind
// it throws: what fails comes back as a Failure.
//
// One thread owns an engine with its sessions; a Writer may be handed texts by any thread (docs/infer.md).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace birkhoff::api {

struct Failure {
  std::string where, what, hint;  // which part speaks, the complaint with both values, a way out (may be "")
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::move(value)) {}
  Result(Failure failure) : v_(std::move(failure)) {}
  explicit operator bool() const { return v_.index() == 0; }
  T& operator*() { return std::get<0>(v_); }
  const T& operator*() const { return std::get<0>(v_); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  const Failure& failure() const { return std::get<1>(v_); }

 private:
  std::variant<T, Failure> v_;
};
using Done = Result<std::monostate>;

struct EngineOptions {
  std::string adapter;                         // LoRA beside the weights; "": the model's own, if any
  std::string dtype;                           // "bf16", "fp32"; "": as the model says
  std::string weights = "auto", head_weights;  // docs/infer.md; "": as weights, q8 beside q4
  std::string cache_type;                      // "fp32", "bf16", "int8"; "": as dtype
  std::string mla = "auto";                    // docs/infer.md: or "expanded", "absorbed"
  std::string panels;                          // directory that keeps quantised weights; "": none
  bool stream = false;       // weights may be more than memory (docs/infer.md); Engine::note() says what to expect
  int64_t cache_bytes = 0;   // of all sessions; 0: a quarter of the machine's memory
  int64_t prefix_bytes = 0;  // of these, kept of prompts for others that begin alike
  bool predictors = false;   // prediction modules are read and cached too: they may draft
  int64_t max_tokens = 0;    // of a text; 0: 4096, or what the model has if that is less
  int threads = 0;           // 0: all cores
  std::function<void(int64_t, int64_t)> progress = {};  // bytes prepared, and in all, while it is opened
};

// What tokens are to a session: given to it, or its own. It decides how a cache is read, and so their bits.
enum class Role { prompt, generated };

struct Token {
  int64_t index = 0;
  int32_t id = 0;
  bool ends = false;                            // the text; its own text is ""
  std::string_view text;                        // what became complete with it
  double logprob = 0;                           // natural, of the model's own distribution
  std::vector<std::pair<int32_t, double>> top;  // most probable ids and their log-probabilities
};
enum class Finish { stop, length, end, cancelled };
struct Written {
  Finish finish = Finish::length;
  int64_t tokens = 0;
  std::string rest;  // of the text: what no further token can complete
  int64_t drafted = 0, accepted = 0;
};

struct GenerationOptions {
  int64_t max_tokens = 256;
  double temperature = 1, top_p = 1, min_p = 0, typical_p = 1;  // temperature 0: always the most probable
  int64_t top_k = 0;
  uint64_t seed = 1;
  double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int32_t, double>> logit_bias;
  // Marks what may be written next: bit id % 32 of word id / 32 of allowed, which comes cleared.
  std::function<void(std::span<const int32_t> written, std::span<uint32_t> allowed)> mask = {};
  std::vector<std::string> stop;
  std::optional<int32_t> turn_end;  // ends the text beside the ids that end every text
  bool special = false;             // special tokens have a text
  bool logprobs = false;
  int64_t top_logprobs = 0;
  int64_t draft = 0;                 // ids to guess at a time, and read at once
  bool draft_by_predictors = false;  // else from what the text said before
};

// A conversation as a prompt, and what the model answered to it.
struct ChatPrompt {
  std::vector<int32_t> ids;
  std::optional<int32_t> turn_end;
  bool in_thought = false;  // it ends inside a thought
};
struct ToolCall {
  std::string name, arguments;  // JSON text
};
struct Answer {
  std::string content, reasoning;
  std::vector<ToolCall> calls;
};

class Session;
struct Piece;

class Engine {
 public:
  // path: a model directory, a run, a checkpoint or a GGUF file.
  static Result<Engine> open(const std::string& path, const EngineOptions& options = {});
  int64_t vocabulary() const;
  int64_t max_tokens() const;  // of a text
  std::string note() const;    // what had to be worked around while opening, or ""

  Result<std::vector<int32_t>> encode(std::string_view text) const;  // a prompt, with the tokens that belong around it
  Result<std::string> decode(std::span<const int32_t> ids) const;
  // messages, tools: JSON lists as OpenAI's chat completions have them; tools may be "".
  Result<ChatPrompt> chat_prompt(const std::string& messages, const std::string& tools = "",
                                 bool thinking = false) const;
  Result<Answer> parse_answer(std::string_view text, bool in_thought = false) const;

  // Of a whole text: log-probabilities of ids[1 ..] given what stands before each, and hidden states [tokens, width]
  // before the output matrix, row by row.
  Result<std::vector<double>> log_probabilities(std::span<const int32_t> ids) const;
  Result<std::vector<float>> hidden_states(std::span<const int32_t> ids) const;

  // A text of at most `capacity` tokens; 0: max_tokens().
  Result<Session> session(int64_t capacity = 0) const;
  Result<Session> restore(const std::string& file) const;  // saved by Session::save

  struct Impl;

 private:
  friend class Writer;
  explicit Engine(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// A text that was read so far. Its bits are its own, whatever else the engine does.
class Session {
 public:
  int64_t length() const;
  int64_t capacity() const;
  std::vector<int32_t> ids() const;
  // Appends the tokens; logits that predict the next one.
  Result<std::vector<float>> feed(std::span<const int32_t> ids, Role role = Role::prompt);
  // Goes back to the longest beginning that it shares with ids, leaving at least the last of them to be fed; its
  // length.
  Result<int64_t> keep_common(std::span<const int32_t> ids);
  Done rewind(int64_t tokens);  // forgets all but the first ones; fails where the model cannot
  Result<Session> fork() const;
  Done save(const std::string& file) const;

  // Feeds the prompt, then writes. on_token: whether to go on. cancel is looked at before every piece and token.
  Result<Written> generate(std::span<const int32_t> prompt, const GenerationOptions& options,
                           const std::function<bool(const Token&)>& on_token,
                           const std::atomic<bool>* cancel = nullptr);

  struct Impl;
  explicit Session(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  friend Done feed_together(std::span<Piece>);
  std::shared_ptr<Impl> impl_;
};

// Pieces of different sessions of one engine, read in one pass: every weight is read once for all.
struct Piece {
  Session* session = nullptr;
  std::span<const int32_t> ids;
  Role role = Role::generated;
  std::vector<float> logits = {};  // assigned: of its last token
};
Done feed_together(std::span<Piece> pieces);

// Many texts at once, in passes that all share. Callbacks come from the thread that runs it, on_end once for every
// text: when the last Writer goes, those that have not ended are told that they are cancelled. What they throw is lost.
class Writer {
 public:
  static Result<Writer> make(const Engine& engine, int64_t most_texts = 64);
  struct Text {
    std::vector<int32_t> prompt;
    GenerationOptions options;
    uint64_t scope = 0;  // prompts share what was read of them with those of the same scope
    std::function<bool(const Token&)> on_token = {};
    std::function<void(const Result<Written>&)> on_end = {};
  };
  Result<uint64_t> submit(Text text);  // any thread
  void cancel(uint64_t text);          // any thread
  bool step();                         // one pass; false: there is nothing to do
  void run();                          // until stop()
  void stop();                         // any thread

 private:
  struct Impl;
  explicit Writer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace birkhoff::api
