// Fuzz target: whatever bytes come as a pickle, reading them ends in a value or an error, within the limits.  A value that
// was read is written, read again, and is the same.
//
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "pyhost/codec.h"
#include "pyhost/value.h"
#include "runtime/testing/fuzz_target.h"

struct FuzzedNpc {
  std::string name;
  std::optional<int8_t> hp;
  std::vector<std::pair<float, float>> path;
};
template <>
inline constexpr auto pyhost::StructFields<FuzzedNpc> = std::tuple{pyhost::Field("name", &FuzzedNpc::name),
                                                                   pyhost::Field("hp", &FuzzedNpc::hp),
                                                                   pyhost::Field("path", &FuzzedNpc::path)};

namespace {

using pyhost::Value;
using pyhost::testing::Require;

class FakeBlock final : public pyhost::SharedBlock {
 public:
  FakeBlock(std::span<std::byte> bytes, uint64_t handle) : SharedBlock(bytes, handle, 1) {}
};

pyhost::DecodeContext Context() {
  alignas(16) static std::array<std::byte, 64> memory;
  static const std::array<pyhost::SharedHandle, 2> blocks = {std::make_shared<FakeBlock>(memory, 5),
                                                             std::make_shared<FakeBlock>(memory, 6)};
  pyhost::DecodeContext context;
  context.buffers = std::span(blocks).first(1);
  context.handles = std::span(blocks).last(1);
  context.max_depth = 100;
  context.max_unfolded_bytes = 1 << 16;
  return context;
}

// As some type: no crash is all that is asked for.
template <typename T>
void Read(std::string_view pickle) {
  static_cast<void>(pyhost::DecodeValue<T>(pickle, Context()).status().ToString());
}

PYHOST_FUZZ_TARGET(Value, "runtime/values/value_corpus", kTruncated) {
  const std::string_view pickle = pyhost::testing::TextOf(input);
  Read<std::vector<double>>(pickle);
  Read<std::map<std::string, std::set<int64_t>>>(pickle);
  Read<std::tuple<uint64_t, pyhost::Integer, std::vector<std::byte>>>(pickle);
  Read<std::variant<FuzzedNpc, std::vector<FuzzedNpc>, pyhost::SharedArray<float>, std::complex<float>>>(pickle);
  const absl::StatusOr<Value> value = pyhost::DecodeValue<Value>(pickle, Context());
  if (!value.ok()) return;
  const absl::StatusOr<pyhost::EncodedValue> written = pyhost::EncodeValue(*value);
  Require(written.ok(), "a value that was read can be written");
  pyhost::DecodeContext context = Context();
  context.handles = written->handles;
  context.max_unfolded_bytes = uint64_t{1} << 30;  // Written, every repetition is there.
  const absl::StatusOr<Value> again = pyhost::DecodeValue<Value>(written->bytes, context);
  Require(again.ok(), "a value that was written can be read");
  // Equal bytes rather than values: NaN differs from itself.
  Require(pyhost::EncodeValue(*again)->bytes == written->bytes, "a value reads as it was written");
}

}  // namespace
