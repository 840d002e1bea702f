#include "runtime/supervision/protocol.h"

#include <algorithm>
#include <array>

#include "runtime/supervision/wire.h"

namespace pyhost {
namespace {

constexpr uint64_t kPayloadMagic = 0x31747261'74736870;  // "phstart1"

// FNV-1a: the same in every process, unlike absl::Hash.
uint64_t Hash(std::string_view bytes, uint64_t hash = 0xcbf29ce484222325) {
  for (unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace

bool IsEarlyVariable(std::string_view entry) {
  constexpr std::array<std::string_view, 8> kPrefixes = {"PYTHON", "LC_",  "LD_",             "MALLOC_",
                                                       "TZ=",    "LANG", "GLIBC_TUNABLES=", "VIRTUAL_ENV="};
  return std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [&](std::string_view prefix) { return entry.starts_with(prefix); });
}

std::string ServerSpec::Encode() const {
  WireWriter writer;
  writer.Text(program);
  writer.Text(method);
  writer.Texts(flags);
  writer.Texts(preload);
  writer.Text(main_path);
  writer.Text(main_name);
  writer.Number(has_sys_path);
  writer.Texts(sys_path);
  writer.Texts(sys_argv);
  writer.Number(shadowed);
  writer.Text(script);
  return writer.Take();
}

absl::StatusOr<ServerSpec> ServerSpec::Decode(std::string_view bytes) {
  WireReader reader(bytes);
  ServerSpec spec;
  spec.program = reader.Text();
  spec.method = reader.Text();
  spec.flags = reader.Texts();
  spec.preload = reader.Texts();
  spec.main_path = reader.Text();
  spec.main_name = reader.Text();
  spec.has_sys_path = reader.Number() != 0;
  spec.sys_path = reader.Texts();
  spec.sys_argv = reader.Texts();
  spec.shadowed = reader.Number() != 0;
  spec.script = reader.Text();
  if (!reader.ok()) return absl::DataLossError("the description of a fork server is cut off");
  return spec;
}

std::vector<std::string> ServerSpec::ToArguments() const {
  std::vector<std::string> words = {"--program=" + program, "--method=" + method};
  for (const std::string& flag : flags) words.push_back("--flag=" + flag);
  for (const std::string& module : preload) words.push_back("--preload=" + module);
  if (!main_path.empty()) words.push_back("--main-path=" + main_path);
  if (!main_name.empty()) words.push_back("--main-name=" + main_name);
  if (has_sys_path) words.push_back("--has-sys-path");
  for (const std::string& path : sys_path) words.push_back("--sys-path=" + path);
  for (const std::string& argument : sys_argv) words.push_back("--sys-argv=" + argument);
  if (shadowed) words.push_back("--shadowed");
  if (!script.empty()) words.push_back("--script=" + script);
  return words;
}

ServerSpec ServerSpec::FromArguments(int argc, char** argv) {
  ServerSpec spec;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    auto value = [&](std::string_view name, auto take) {
      if (word.starts_with(name)) take(std::string(word.substr(name.size())));
    };
    value("--program=", [&](std::string text) { spec.program = std::move(text); });
    value("--method=", [&](std::string text) { spec.method = std::move(text); });
    value("--flag=", [&](std::string text) { spec.flags.push_back(std::move(text)); });
    value("--preload=", [&](std::string text) { spec.preload.push_back(std::move(text)); });
    value("--main-path=", [&](std::string text) { spec.main_path = std::move(text); });
    value("--main-name=", [&](std::string text) { spec.main_name = std::move(text); });
    value("--has-sys-path", [&](const std::string&) { spec.has_sys_path = true; });
    value("--sys-path=", [&](std::string text) { spec.sys_path.push_back(std::move(text)); });
    value("--sys-argv=", [&](std::string text) { spec.sys_argv.push_back(std::move(text)); });
    value("--shadowed", [&](const std::string&) { spec.shadowed = true; });
    value("--script=", [&](std::string text) { spec.script = std::move(text); });
  }
  return spec;
}

uint64_t ServerSpec::Key(const std::vector<std::string>& environment) const {
  std::vector<std::string_view> early;
  for (const std::string& entry : environment) {
    if (IsEarlyVariable(entry)) early.push_back(entry);
  }
  std::sort(early.begin(), early.end());
  ServerSpec same = *this;
  same.sys_path.clear();
  same.sys_argv.clear();
  same.script.clear();
  uint64_t key = Hash(same.Encode());
  for (std::string_view entry : early) key = Hash(entry, Hash("\n", key));
  return key == 0 ? 1 : key;
}

std::string StartPayload::EncodeHead(std::string_view attributes, std::string_view server, size_t body_size) {
  WireWriter writer;
  writer.Number(kPayloadMagic);
  writer.Text(attributes);
  writer.Text(server);
  writer.Number(body_size);
  return writer.Take();
}

absl::StatusOr<StartPayload> StartPayload::Parse(std::span<const std::byte> block) {
  WireReader reader({reinterpret_cast<const char*>(block.data()), block.size()});
  StartPayload payload;
  bool magic = reader.Number() == kPayloadMagic;
  payload.attributes = reader.Text();
  payload.server = reader.Text();
  std::string_view body = reader.Text();
  if (!magic || !reader.ok()) return absl::DataLossError("a start payload is damaged");
  payload.body = std::as_bytes(std::span(body.data(), body.size()));
  return payload;
}

}  // namespace pyhost
