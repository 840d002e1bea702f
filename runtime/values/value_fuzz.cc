// Fuzz target: whatever bytes come as a pickle, reading them ends in a value or an error, within the limits.  A value that
// was read is written, read again, and is the same.
//
// With clang: build `value_fuzz` and run it on a copy of value_corpus/.  Any compiler: the test "value corpus" runs the corpus
// through it.

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

void Require(bool holds) {
  if (!holds) abort();
}

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that a read behind its end is found.
  const std::vector<char> copy(data, data + size);
  const std::string_view pickle(copy.data(), copy.size());
  Read<std::vector<double>>(pickle);
  Read<std::map<std::string, std::set<int64_t>>>(pickle);
  Read<std::tuple<uint64_t, pyhost::Integer, std::vector<std::byte>>>(pickle);
  Read<std::variant<FuzzedNpc, std::vector<FuzzedNpc>, pyhost::SharedArray<float>, std::complex<float>>>(pickle);
  const absl::StatusOr<Value> value = pyhost::DecodeValue<Value>(pickle, Context());
  if (!value.ok()) return 0;
  const absl::StatusOr<pyhost::EncodedValue> written = pyhost::EncodeValue(*value);
  Require(written.ok());
  pyhost::DecodeContext context = Context();
  context.handles = written->handles;
  context.max_unfolded_bytes = uint64_t{1} << 30;  // Written, every repetition is there.
  const absl::StatusOr<Value> again = pyhost::DecodeValue<Value>(written->bytes, context);
  Require(again.ok());
  // Equal bytes rather than values: NaN differs from itself.
  Require(pyhost::EncodeValue(*again)->bytes == written->bytes);
  return 0;
}
