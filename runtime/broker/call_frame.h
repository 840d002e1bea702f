// Call and reply frames: what the messages of a pool's two queues contain.  The one description that caller and
// worker share.
//
// The tag of every message is the CallId.
//
// Call:   CallHeader (16 bytes) | function, function_size bytes | arguments
// Reply:  ReplyHeader (16 bytes) | outcome
//
// Function, arguments and outcome are opaque here; the Python binding puts pickles there.  A function that is too large
// for every frame of a map lies in a Memory object instead (kFunctionInMemory): the last handle of the message,
// whose block holds function_size bytes.
//
// Values are never renumbered.  Little-endian, as the queue's own frames.  The reader trusts nothing: Parse
// returns DataLoss for what does not fit.

#ifndef PYHOST_RUNTIME_BROKER_CALL_FRAME_H_
#define PYHOST_RUNTIME_BROKER_CALL_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/ids.h"

namespace pyhost {

// Names one call of one pool; never used again in that pool.  0 = none.  Ids grow in the order of submission.
class CallId {
 public:
  constexpr CallId() = default;
  static constexpr CallId FromValue(uint64_t value) {
    CallId id;
    id.value_ = value;
    return id;
  }
  constexpr uint64_t value() const { return value_; }
  constexpr explicit operator bool() const { return value_ != 0; }
  friend constexpr bool operator==(CallId, CallId) = default;
  std::string ToString() const { return value_ == 0 ? "no call" : absl::StrCat("call ", value_); }

 private:
  uint64_t value_ = 0;
};

// How the arguments are applied to the function.
enum class CallKind : uint8_t {
  kCall = 1,     // (args, kwds): f(*args, **kwds)
  kOne = 2,      // x: f(x)
  kStar = 3,     // args: f(*args)
  kMap = 4,      // xs: [f(x) for x in xs]
  kStarMap = 5,  // xs: [f(*x) for x in xs]
};

// Bits of CallHeader::flags.
inline constexpr uint8_t kFunctionInMemory = 1;  // see above
inline constexpr uint8_t kFunctionInside = 2;    // the arguments' pickle begins with the function: (f, args, kwds)
inline constexpr uint8_t kMayRunAgain = 4;       // the reader must leave the out-of-band arguments as they are

struct CallHeader {
  CallKind kind;
  uint8_t flags;
  uint16_t reserved;
  uint32_t limit_millis;  // how long the function may run (for each item, of several); 0 = no limit
  uint64_t function_size;
};
static_assert(sizeof(CallHeader) == 16 && std::is_trivially_copyable_v<CallHeader>);

enum class ReplyKind : uint8_t {
  kValue = 1,   // outcome: the result
  kError = 2,   // outcome: what the function raised, packed by the worker
  kLost = 3,    // outcome: LostWorker; written by recovery, or by a worker that ends in the middle of a call
  kReport = 4,  // for no call: why a worker cannot begin, packed by the worker
  kReady = 5,   // for no call: a worker has begun; to a NoticeSink
  kRequest = 6,  // for no call: a worker asks its caller for something; to a NoticeSink
};

struct ReplyHeader {
  ReplyKind kind;
  uint8_t reserved[7];
  uint64_t run_nanos;  // time the function ran; 0 when unknown
};
static_assert(sizeof(ReplyHeader) == 16 && std::is_trivially_copyable_v<ReplyHeader>);

// Why a call has no outcome.
struct LostWorker {
  uint32_t host;         // HostId
  uint32_t exit;         // ExitStatus::Encode()
  int32_t pid;
  uint32_t reserved;
};
static_assert(sizeof(LostWorker) == 16 && std::is_trivially_copyable_v<LostWorker>);

// A parsed call; points into the message.
struct CallView {
  CallKind kind = CallKind::kCall;
  uint8_t flags = 0;
  std::span<const std::byte> function;   // empty with kFunctionInside
  std::span<const std::byte> arguments;  // with kFunctionInMemory too: all behind the header
  uint64_t function_size = 0;
  uint32_t limit_millis = 0;
};

struct ReplyView {
  ReplyKind kind = ReplyKind::kValue;
  uint64_t run_nanos = 0;
  std::span<const std::byte> outcome;
};

inline std::span<const std::byte> AsBytes(const auto& header) { return std::as_bytes(std::span(&header, 1)); }

inline absl::StatusOr<CallView> ParseCall(std::span<const std::byte> payload) {
  CallHeader header;
  if (payload.size() < sizeof(header)) return absl::DataLossError("malformed call: shorter than its header");
  std::memcpy(&header, payload.data(), sizeof(header));
  payload = payload.subspan(sizeof(header));
  if (header.kind < CallKind::kCall || header.kind > CallKind::kStarMap) {
    return absl::DataLossError(absl::StrCat("malformed call: kind ", static_cast<int>(header.kind)));
  }
  CallView view;
  view.kind = header.kind;
  view.flags = header.flags;
  view.function_size = header.function_size;
  view.limit_millis = header.limit_millis;
  if ((header.flags & kFunctionInMemory) == 0) {
    if (header.function_size > payload.size()) {
      return absl::DataLossError(absl::StrCat("malformed call: function of ", header.function_size, " bytes in ",
                                              payload.size()));
    }
    view.function = payload.first(header.function_size);
    payload = payload.subspan(header.function_size);
  }
  view.arguments = payload;
  return view;
}

inline absl::StatusOr<ReplyView> ParseReply(std::span<const std::byte> payload) {
  ReplyHeader header;
  if (payload.size() < sizeof(header)) return absl::DataLossError("malformed reply: shorter than its header");
  std::memcpy(&header, payload.data(), sizeof(header));
  payload = payload.subspan(sizeof(header));
  if (header.kind < ReplyKind::kValue || header.kind > ReplyKind::kRequest) {
    return absl::DataLossError(absl::StrCat("malformed reply: kind ", static_cast<int>(header.kind)));
  }
  if (header.kind == ReplyKind::kLost && payload.size() != sizeof(LostWorker)) {
    return absl::DataLossError("malformed reply: a lost call without its worker");
  }
  return ReplyView{.kind = header.kind, .run_nanos = header.run_nanos, .outcome = payload};
}

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_CALL_FRAME_H_
