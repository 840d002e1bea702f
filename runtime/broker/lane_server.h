// LaneServer: a worker's end of several lanes (CallLane), served in the order of preference.
//
// All workers wait in one place, the queue of the lane `wait_at`: whoever pushes to another lane wakes them there.
//
// One thread of one process at a time, as CallServer.

#ifndef PYHOST_RUNTIME_BROKER_LANE_SERVER_H_
#define PYHOST_RUNTIME_BROKER_LANE_SERVER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/broker/call_server.h"

namespace pyhost {

class LaneServer {
 public:
  // The calling host holds the `lanes`.  `hot`: never sleeps, so that nobody ever has to wake it.
  static absl::StatusOr<std::unique_ptr<LaneServer>> Open(Segment& segment, HostId me, std::span<const Handle> lanes,
                                                          size_t wait_at, bool hot);

  // As CallServer::Next; OutOfRange when all lanes have ended.
  absl::StatusOr<Message> Next(Wait wait);
  // The lane of the call taken last: answer there.
  CallServer& current() { return *current_; }

 private:
  LaneServer() = default;
  // Takes the most preferred call, or learns that there will be none.  False: nothing there now.
  bool Take();
  absl::Status Spin(Wait wait);

  std::vector<std::unique_ptr<CallServer>> lanes_;
  size_t wait_at_ = 0;
  bool hot_ = false;
  CallServer* current_ = nullptr;
  absl::StatusOr<Message> taken_ = absl::UnknownError("");
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_LANE_SERVER_H_
