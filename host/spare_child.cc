#include "host/spare_child.h"

#include "modules/native/python_ref.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "host/internal_arguments.h"
#include "host/process_title.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/segment/object_table.h"

namespace pyhost::host {
namespace {

// What came before the start was not meant for the child: its like would not have existed yet.
void DropPendingSignals() {
  sigset_t pending;
  if (sigpending(&pending) != 0) return;
  for (int number = 1; number < NSIG; ++number) {
    if (sigismember(&pending, number) != 1) continue;
    struct sigaction ignore = {}, before = {};
    ignore.sa_handler = SIG_IGN;
    if (sigaction(number, &ignore, &before) == 0) sigaction(number, &before, nullptr);
  }
}

}  // namespace

void SpareChild::Fork(const WarmPages* warm, const std::function<void()>& in_child, const Life& life) {
  absl::StatusOr<std::pair<UniqueFd, UniqueFd>> ends = DatagramSocketPair();
  if (!ends.ok()) return;
  session_->PrepareUnbornFork();
  PyOS_BeforeFork();
  pid_t pid = fork();
  if (pid == 0) {
    ends->first.reset();
    socket_.reset();
    in_child();
    PyOS_AfterFork_Child();
    AwaitOrders(std::move(ends->second), warm, life);
  }
  session_->NoteForkResult(pid);
  PyOS_AfterFork_Parent();
  if (pid < 0) return;
  pid_ = pid;
  socket_ = std::move(ends->first);
}

absl::StatusOr<UniqueFd> SpareChild::HandOver(HostId host, std::span<const int> fds) {
  if (pid_ == 0) return absl::NotFoundError("no spare child");
  pid_ = 0;
  UniqueFd socket = std::move(socket_);
  session_->segment().objects().DuplicateHolds(session_->me(), host);
  PYHOST_CRASH_POINT("server-before-handover");
  ControlMessage orders = {.type = MessageType::kStart, .host = host.value()};
  PYHOST_RETURN_IF_ERROR(SendDatagram(socket.get(), AsBytes(orders), fds, Wait::Try()));
  PYHOST_CRASH_POINT("server-handed-over");
  return socket;
}

void SpareChild::Forget() {
  pid_ = 0;
  socket_.reset();
}

bool SpareChild::GetReady(int socket, const WarmPages* warm) {
  if (warm == nullptr) return true;
  pollfd orders = {socket, POLLIN, 0};
  bool in_time = true;
  warm->Warm([&] {
    // Somebody may be waiting for this processor, and nobody waits for this work: the kernel would let it go on for
    // milliseconds all the same.
    sched_yield();
    return in_time = poll(&orders, 1, 0) == 0;
  });
  return in_time;
}

void SpareChild::AwaitOrders(UniqueFd socket, const WarmPages* warm, const Life& life) {
  SetProcessTitle("pyhost-spare");
  const bool in_time = GetReady(socket.get(), warm);
  ControlMessage orders = {};
  absl::StatusOr<ReceivedDatagram> received = absl::UnavailableError("");
  do {
    pollfd event = {socket.get(), POLLIN, 0};
    if (poll(&event, 1, -1) < 0 && errno != EINTR) _exit(1);
    received = ReceiveDatagram(socket.get(), std::as_writable_bytes(std::span(&orders, 1)));
  } while (received.ok() && received->would_block);
  if (!received.ok() || received->end_of_file) _exit(0);
  if (!received->descriptors.ok()) _exit(ReportInternalError("a new process", received->descriptors));
  DropPendingSignals();
  PYHOST_CRASH_POINT("spare-before-adopt");
  // Another fork has adopted the record already, or it was given up: this one was never asked for.
  if (!session_->TakePlace(HostId::FromValue(orders.host)).ok()) _exit(0);
  socket.reset();
  life(std::move(received->fds), in_time);
  _exit(0);
}

}  // namespace pyhost::host
