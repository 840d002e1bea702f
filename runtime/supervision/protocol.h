// The datagrams between hosts, supervisor and fork servers, and the start payload.
//
// All are of one fixed size and may carry descriptors.  Nothing is ever answered by a datagram to a host: answers
// stand in the host's record (pid, exit word), where everybody can wait for them.  An unknown type is ignored.

#ifndef PYHOST_RUNTIME_SUPERVISION_PROTOCOL_H_
#define PYHOST_RUNTIME_SUPERVISION_PROTOCOL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"

namespace pyhost {

enum class MessageType : uint32_t {
  kWatch = 1,    // host -> supervisor: watch `host`.  May carry the read end of its life pipe (session.h).
  kStart = 2,    // host -> supervisor -> server: fork `host`.  Carries the descriptors of its StartPayload.
  kWarm = 3,     // host -> supervisor: launch the server that would fork `host`, if there is none, and end `host`'s
                 // record: exit code 0, or why there is no server.  Carries the descriptors of its StartPayload.
  kForked = 4,   // server -> supervisor: `host` is process `pid` now
  kStop = 6,     // host -> supervisor: let the fork server `host` end
  kFailed = 5,   // server -> supervisor: `host` was not started; its record says why
};

struct ControlMessage {
  MessageType type;
  uint32_t host = 0;      // HostId
  uint64_t server = 0;    // key of the server (ServerSpec::Key)
  int64_t pid = 0;
};
static_assert(sizeof(ControlMessage) == 24);

inline std::span<const std::byte> AsBytes(const ControlMessage& message) {
  return std::as_bytes(std::span(&message, 1));
}

// What a fork server is started with.  Two starts with the same spec and the same early variables share a server.
struct ServerSpec {
  // The name in `preload` that stands for the main module.
  static constexpr std::string_view kMain = "__main__";

  std::string program;                  // the pyhost that runs it
  std::string method;                   // "spawn" or "forkserver"
  std::vector<std::string> flags;       // interpreter options, as on a command line
  std::vector<std::string> preload;     // modules, in order; kMain among them
  std::string main_path;                // of the main module, or empty
  std::string main_name;                // its name for `-m`, or empty
  bool has_sys_path = false;            // whether sys_path is to be used
  std::vector<std::string> sys_path;
  std::vector<std::string> sys_argv;    // for the main module while it is preloaded, or empty
  bool shadowed = false;                // modules of the program may stand in place of standard ones: none are imported ahead
  std::string script;                   // of the program, or empty: what it imports first, its children will (warm_modules.py)

  std::string Encode() const;
  static absl::StatusOr<ServerSpec> Decode(std::string_view bytes);
  // The same as command-line words; words of other kinds are left alone.
  std::vector<std::string> ToArguments() const;
  static ServerSpec FromArguments(int argc, char** argv);
  // Includes the variables of `environment` that are read before any user code runs.  Not sys_path and sys_argv: as in
  // python3, the server keeps those it started with, and each child sets its own.  Nor the script, which changes no child.
  uint64_t Key(const std::vector<std::string>& environment) const;
};

// The exit code of a fork server whose interpreter the main module has made unfit to be forked.  Its place is taken by one that
// leaves the import to the children.
inline constexpr int kExitToLeaveMainToChildren = 97;

// True for variables that a running interpreter, C library or allocator does not read again.
bool IsEarlyVariable(std::string_view entry);

// The block of a start: what everybody on the way of a start needs, and the bytes for the child's Python.
// Layout: u64 magic | text attributes | text server spec | u64 body size | body.
struct StartPayload {
  std::string_view attributes;  // StartAttributes::Encode
  std::string_view server;      // ServerSpec::Encode
  std::span<const std::byte> body;

  static std::string EncodeHead(std::string_view attributes, std::string_view server, size_t body_size);
  // Views into `block`.  DataLoss when it is no start payload.
  static absl::StatusOr<StartPayload> Parse(std::span<const std::byte> block);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_PROTOCOL_H_
