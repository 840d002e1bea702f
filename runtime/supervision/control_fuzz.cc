// Fuzz target: whatever datagrams reach a supervisor, from hosts or as answers of fork servers, it goes on, and ends no host
// that lives.
//
// Each step of the input is a datagram: from whom, its type, the host and the server that it names, its size and number of
// descriptors.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/os/unix_socket.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/start_attributes.h"
#include "runtime/supervision/supervisor.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::FuzzReader;
using testing::Require;

constexpr int kMostSteps = 40;
// Above every pid_max.
constexpr pid_t kNobody = 0x7ffffff0;

// Servers are nobody; what the supervisor would tell them, and they it, goes through ends().
class SocketLauncher final : public Launcher {
 public:
  absl::StatusOr<pid_t> Launch(const LaunchOptions& options) override {
    if (ends_.size() >= 4) return absl::ResourceExhaustedError("no more servers");
    absl::StatusOr<UniqueFd> end = DuplicateHigh(options.descriptors.front().ours);
    if (!end.ok()) return end.status();
    ends_.push_back(*std::move(end));
    return kNobody + static_cast<pid_t>(ends_.size());
  }
  const std::vector<UniqueFd>& ends() const { return ends_; }

 private:
  std::vector<UniqueFd> ends_;
};

class SupervisedSession {
 public:
  SupervisedSession() {
    segment_ = *Segment::Create({.limit = 1 << 20, .max_hosts = 64, .max_objects = 64});
    root_ = NewHost(HostFlag::kRoot, Handle());
    Require(hosts().Adopt(root_).ok(), "the root has its record");
    kept_ = *segment_->objects().Create(ObjectKind::kMemory, 64, root_);
    auto ends = *DatagramSocketPair();
    control_ = std::move(ends.first);
    SessionTicket ticket;
    ticket.segment_fd = segment_->fd();
    ticket.control_fd = control_.get();
    ticket.root = root_;
    ticket.me = ticket.supervisor = me_ = NewHost(HostFlag::kSupervisor, Handle());
    supervisor_ = *Supervisor::Create(ticket, std::move(ends.second), &launcher_);
    // To be started: properly, and with a payload that is none.
    for (const bool proper : {true, true, false}) {
      named_.push_back(NewHost(HostFlag::kWorker, NewPayload(proper)));
    }
    named_.push_back(NewHost(HostFlag::kForked, Handle()));
    named_.push_back(NewHost(HostFlag::kDaemon, kept_));
    hosts().SetExit(named_.back(), {ExitStatus::Kind::kExited, 0}, true);
    named_.insert(named_.end(), {root_, me_, HostId()});
  }

  void Step(FuzzReader* input) {
    const uint64_t from = input->Choice(4);
    int socket = control_.get();
    if (from > 0) {
      if (from > launcher_.ends().size()) return;
      socket = launcher_.ends()[from - 1].get();
    }
    std::byte bytes[2 * sizeof(ControlMessage)] = {};
    const ControlMessage message = ReadMessage(input);
    memcpy(bytes, &message, sizeof(message));
    const size_t sizes[] = {sizeof(message), sizeof(message), sizeof(message), sizeof(bytes), sizeof(message) - 1, 0};
    const size_t size = sizes[input->Choice(std::size(sizes))];
    const std::vector<int> fds(input->Choice(4), segment_->fd());
    // The supervisor may have closed this one.
    if (!SendDatagram(socket, {bytes, size}, fds, Wait::Try()).ok()) return;
    Require(supervisor_->RunOnce().ok(), "the supervisor goes on");
    for (const HostId host : {root_, me_}) Require(hosts().IsRunning(host), "who lives goes on");
    Require(segment_->objects().IsHeld(kept_, root_), "who lives keeps what it holds");
  }

 private:
  HostTable& hosts() { return segment_->hosts(); }

  HostId NewHost(HostFlag flag, Handle payload) {
    return *hosts().CreateEmbryo({root_, static_cast<uint32_t>(flag), "host", payload});
  }

  Handle NewPayload(bool proper) {
    ServerSpec spec;
    spec.method = "spawn";
    spec.program = "/no/program";
    StartAttributes attributes;
    attributes.descriptors = {0, -7, 2, StartAttributes::kWorkingDirectory};
    std::string bytes = StartPayload::EncodeHead(attributes.Encode(), spec.Encode(), 0);
    if (!proper) bytes.resize(bytes.size() / 2);
    const Handle payload = *segment_->objects().Create(ObjectKind::kMemory, bytes.size(), root_);
    memcpy(segment_->objects().Block(payload)->data(), bytes.data(), bytes.size());
    return payload;
  }

  ControlMessage ReadMessage(FuzzReader* input) {
    ControlMessage message = {};
    message.type = static_cast<MessageType>(input->Choice(9));
    const uint64_t host = input->Choice(named_.size() + 2);
    if (host < named_.size()) {
      message.host = named_[host].value();
    } else if (host == named_.size()) {
      message.host = static_cast<uint32_t>(input->Number(4));
    } else {
      const std::vector<HostInfo> all = hosts().List();
      message.host = all[input->Choice(256) % all.size()].id.value();
    }
    message.server = input->Choice(5);
    message.pid = static_cast<int64_t>(input->Number(2));
    return message;
  }

  SocketLauncher launcher_;
  std::unique_ptr<Segment> segment_;
  HostId root_;
  HostId me_;
  Handle kept_;
  std::vector<HostId> named_;
  UniqueFd control_;
  std::unique_ptr<Supervisor> supervisor_;
};

PYHOST_FUZZ_TARGET(Control, "runtime/supervision/control_corpus", kTruncated) {
  SupervisedSession session;
  FuzzReader reader(input);
  for (int step = 0; step < kMostSteps && !reader.empty(); ++step) session.Step(&reader);
}

}  // namespace
}  // namespace pyhost
