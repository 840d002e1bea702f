#include "runtime/broker/lane_server.h"

#include <utility>

#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/cpu.h"
#include "runtime/sync/waiter.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<LaneServer>> LaneServer::Open(Segment& segment, HostId me, std::span<const Handle> lanes,
                                                             size_t wait_at, bool hot) {
  if (wait_at >= lanes.size()) return absl::InvalidArgumentError("a worker without a lane to wait at");
  std::unique_ptr<LaneServer> server(new LaneServer);
  for (Handle lane : lanes) {
    PYHOST_ASSIGN_OR_RETURN(server->lanes_.emplace_back(), CallServer::Open(segment, me, lane));
  }
  server->wait_at_ = wait_at;
  server->hot_ = hot;
  server->current_ = server->lanes_[wait_at].get();
  return server;
}

bool LaneServer::Take() {
  size_t ended = 0;
  for (const std::unique_ptr<CallServer>& lane : lanes_) {
    if (!lane->HasNext()) continue;
    taken_ = lane->Next(Wait::Try());
    if (absl::IsDeadlineExceeded(taken_.status())) continue;  // Another worker was faster.
    current_ = lane.get();
    if (!absl::IsOutOfRange(taken_.status())) {
      PYHOST_CRASH_POINT("lane-server-taken");
      return true;
    }
    ++ended;
  }
  return ended == lanes_.size();
}

absl::StatusOr<Message> LaneServer::Next(Wait wait) {
  if (!Take()) {
    const absl::Status waited =
        hot_ ? Spin(wait) : lanes_[wait_at_]->calls().AwaitTaken([this] { return Take(); }, wait);
    if (!waited.ok()) return waited;
  }
  return std::exchange(taken_, absl::UnknownError(""));
}

absl::Status LaneServer::Spin(Wait wait) {
  constexpr int kLooksPerQuestion = 20'000;  // Signals are asked for about a thousand times a second.
  const BlockingScope blocking(wait.interruptible);
  for (;;) {
    for (int look = 0; look < kLooksPerQuestion; ++look) {
      if (Take()) return absl::OkStatus();
      SpinPause();
    }
    if (wait.deadline.Expired()) return absl::DeadlineExceededError("the deadline expired");
    if (wait.interruptible == nullptr) continue;
    if (absl::Status status = wait.interruptible->OnSignal(); !status.ok()) return status;
  }
}

}  // namespace pyhost
