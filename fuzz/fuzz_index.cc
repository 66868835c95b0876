// model.safetensors.index.json: names of files that must stay in the directory.
#include "checkpoint/weight_files.h"
#include "fuzz/mutate.h"

int main(int argc, char** argv) {
  using namespace birkhoff;
  fuzz::MemoryFile file;
  fuzz::Target t;
  t.name = "index";
  t.seeds = {
      R"({"metadata":{"total_size":48},"weight_map":{"model.embed_tokens.weight":"model-00001-of-00002.safetensors","model.norm.weight":"model-00002-of-00002.safetensors"}})",
      R"({"weight_map":{"a":"b"}})"};
  t.dictionary = {"../", "/etc/passwd", "..", ".", "\"\"", "\\u0000", "weight_map", "\xc3\x28", "null", "{}", "[]"};
  t.run = [&](const std::string& input) {
    file.fill(input);
    for (const std::string& name : checkpoint::index_files(file.path()))
      if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
          name.find('\0') != std::string::npos)
        throw std::logic_error("a file name left the directory");
  };
  const size_t most = (size_t{32} << 20) - 128;
  t.large = {[=] { return "{\"weight_map\":{" + fuzz::repeated("\"#\":\"#\",", most / 8) + "\"x\":\"y\"}}"; },
             [=] { return "{\"weight_map\":{" + fuzz::repeated("\"#\":\"a\",", most) + "\"x\":\"y\"}}"; },
             [=] { return "{\"metadata\":[" + fuzz::repeated("[],", most) + "0],\"weight_map\":{\"x\":\"y\"}}"; }};
  return fuzz::run(argc, argv, t);
}
