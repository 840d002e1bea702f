// Fuzz target: everything that starts a child is read from bytes that others wrote: the start payload, what it says of
// the fork server and of the child's attributes, and the words of a command line.  What can be read and is written
// down again reads the same.

#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/server_profile.h"
#include "runtime/supervision/start_attributes.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::Require;
using testing::TextOf;

void ReadServerSpec(std::string_view bytes) {
  const absl::StatusOr<ServerSpec> spec = ServerSpec::Decode(bytes);
  if (!spec.ok()) return Require(absl::IsDataLoss(spec.status()), "a bad server spec is DataLoss");
  const std::string written = spec->Encode();
  Require(ServerSpec::Decode(written)->Encode() == written, "a server spec reads as it was written");
  // Command lines end their words with zeros, hence only what has none comes through.
  if (written.find('\0', 0) == std::string::npos) return;
  std::vector<std::string> words = spec->ToArguments();
  words.insert(words.begin(), "pyhost");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  ServerSpec::FromArguments(static_cast<int>(argv.size()), argv.data());
}

void ReadAttributes(std::string_view bytes) {
  const absl::StatusOr<StartAttributes> attributes = StartAttributes::Decode(bytes);
  if (!attributes.ok()) return Require(absl::IsDataLoss(attributes.status()), "bad attributes are DataLoss");
  const std::string written = attributes->Encode();
  Require(StartAttributes::Decode(written)->Encode() == written, "attributes read as they were written");
}

void ReadPayload(FuzzInput block) {
  const absl::StatusOr<StartPayload> payload = StartPayload::Parse(block);
  if (!payload.ok()) return Require(absl::IsDataLoss(payload.status()), "a bad start payload is DataLoss");
  ReadServerSpec(payload->server);
  ReadAttributes(payload->attributes);
  Require(payload->body.size() <= block.size(), "the body lies in the block");
}

void ReadProfile(std::string_view word) {
  const absl::StatusOr<ServerProfile> profile = ServerProfile::FromArgument(word);
  if (!profile.ok()) return Require(absl::IsInvalidArgument(profile.status()), "a bad profile is InvalidArgument");
  const std::string written = profile->ToArgument();
  Require(ServerProfile::FromArgument(written)->ToArgument() == written, "a profile reads as it was written");
}

// The first byte says what the rest is.
PYHOST_FUZZ_TARGET(Start, "runtime/supervision/start_corpus", kTruncated) {
  if (input.empty()) return;
  const FuzzInput rest = input.subspan(1);
  switch (static_cast<char>(input.front())) {
    case 'p': return ReadPayload(rest);
    case 's': return ReadServerSpec(TextOf(rest));
    case 'a': return ReadAttributes(TextOf(rest));
    default: return ReadProfile(TextOf(rest));
  }
}

}  // namespace
}  // namespace pyhost
