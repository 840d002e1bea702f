#include "runtime/supervision/supervisor.h"

#include <sys/prctl.h>

#include <cerrno>
#include <span>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/supervision/reaper.h"

namespace pyhost {
namespace {

// A forked child whose parent is dead may take this long until it says who it is.
constexpr absl::Duration kAdoptionPatience = absl::Seconds(5);
// Servers end by themselves when their socket closes; what they preloaded may have exit functions.
constexpr absl::Duration kServerPatience = absl::Seconds(2);

// A record whose process nobody knows yet.
bool HasNoProcess(const HostInfo& info) { return info.state == HostState::kEmbryo && info.pid == 0; }

// Our own kind is started by us alone.
bool IsService(const HostInfo& info) { return info.has(HostFlag::kSupervisor) || info.has(HostFlag::kServer); }

}  // namespace

Supervisor::Supervisor(const SessionTicket& ticket, UniqueFd control) : ticket_(ticket), control_(std::move(control)) {}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(const SessionTicket& ticket, UniqueFd control,
                                                               Launcher* launcher) {
  std::unique_ptr<Supervisor> supervisor(new Supervisor(ticket, std::move(control)));
  Supervisor* self = supervisor.get();
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return ErrnoStatus(errno, "prctl(PR_SET_CHILD_SUBREAPER)");
  PYHOST_ASSIGN_OR_RETURN(self->segment_, Segment::Attach(ticket.segment_fd));
  PYHOST_RETURN_IF_ERROR(self->segment_->hosts().Adopt(ticket.me));
  PYHOST_ASSIGN_OR_RETURN(self->loop_, EventLoop::Create());
  self->watch_ = std::make_unique<HostWatch>(self->segment_.get(), ticket.me, self->loop_.get(),
                                             [self](HostId id) { self->SettleEmbryosOf(id); });
  self->servers_ = std::make_unique<ServerSet>(self->segment_.get(), ticket, launcher, self->loop_.get(),
                                               self->watch_.get());
  PYHOST_RETURN_IF_ERROR(self->Watch());
  return supervisor;
}

absl::Status Supervisor::Watch() {
  PYHOST_ASSIGN_OR_RETURN(children_, OpenChildSignal());
  PYHOST_RETURN_IF_ERROR(loop_->Watch(children_.get(), [this] { OnChildren(); }).status());
  PYHOST_ASSIGN_OR_RETURN(control_token_, loop_->Watch(control_.get(), [this] { OnControl(); }));
  watch_->Add(ticket_.root, UniqueFd());
  return absl::OkStatus();
}

absl::Status Supervisor::Run() {
  while (!done_) {
    PYHOST_RETURN_IF_ERROR(RunOnce());
  }
  return EndServers();
}

absl::Status Supervisor::RunOnce() {
  PYHOST_RETURN_IF_ERROR(loop_->RunOnce());
  ConsiderEnd();
  return absl::OkStatus();
}

void Supervisor::OnControl() {
  for (;;) {
    ControlMessage message = {};
    auto received = ReceiveDatagram(control_.get(), std::as_writable_bytes(std::span(&message, 1)));
    if (absl::IsDataLoss(received.status())) continue;  // no message of ours
    if (!received.ok() || received->would_block) return;
    if (received->end_of_file) {
      // Somebody shut it down, for everybody: we have one of its other ends ourselves.
      loop_->Forget(std::exchange(control_token_, 0));
      return;
    }
    if (received->size != sizeof(message)) continue;
    const HostId host = HostId::FromValue(message.host);
    if (message.type == MessageType::kStart && !received->descriptors.ok()) {
      if (IsUnborn(host)) servers_->Fail(host, Annotate(received->descriptors, "the supervisor"));
    } else {
      OnMessage(message, std::move(received->fds));
    }
  }
}

// A start or a question may end its host's record: no other message may, whatever it names.
void Supervisor::OnMessage(const ControlMessage& message, std::vector<UniqueFd> fds) {
  const HostId host = HostId::FromValue(message.host);
  switch (message.type) {
    case MessageType::kWatch:
      watch_->Add(host, fds.empty() ? UniqueFd() : std::move(fds[0]));
      break;
    case MessageType::kStart:
      if (IsUnborn(host)) servers_->Start(message, std::move(fds));
      break;
    case MessageType::kWarm:
      if (IsUnborn(host)) servers_->Warm(message, std::move(fds));
      break;
    case MessageType::kStop:
      servers_->Stop(host);
      break;
    default:
      break;
  }
}

void Supervisor::OnChildren() {
  ReapChildren(children_.get(), [this](pid_t pid, ExitStatus status) {
    if (!servers_->OnReaped(pid, status)) watch_->OnReaped(pid, status);
  });
}

// What a dead host had reserved: a fork of it may be about to say who it is, a start that it never sent is none.
void Supervisor::SettleEmbryosOf(HostId parent) {
  OnControl();  // it may have sent something just before it died
  for (const HostInfo& info : segment_->hosts().List()) {
    if (!HasNoProcess(info) || !(info.parent == parent) || servers_->Has(info.id)) continue;
    if (!info.has(HostFlag::kForked)) {
      servers_->Fail(info.id, absl::CancelledError("its starter died"));
      continue;
    }
    expected_forks_.push_back(info.id);
    loop_->After(kAdoptionPatience, [this, id = info.id] {
      if (IsUnborn(id)) servers_->Fail(id, absl::CancelledError("its forker died"));
    });
  }
}

bool Supervisor::IsUnborn(HostId id) const {
  absl::StatusOr<HostInfo> info = segment_->hosts().Info(id);
  return info.ok() && HasNoProcess(*info) && !IsService(*info);
}

void Supervisor::ConsiderEnd() {
  if (watch_->user_hosts() > 0 || !servers_->idle()) return;
  std::erase_if(expected_forks_, [this](HostId id) { return !IsUnborn(id); });
  if (!expected_forks_.empty()) return;
  OnControl();  // one that was expected may have been born, and said so, just now
  done_ = watch_->user_hosts() == 0 && servers_->idle();
}

absl::Status Supervisor::EndServers() {
  servers_->CloseAll();
  bool late = false;
  loop_->After(kServerPatience, [&] { late = true; });
  while (servers_->running() > 0 && !late) {
    PYHOST_RETURN_IF_ERROR(loop_->RunOnce());
  }
  servers_->KillAll();
  return absl::OkStatus();
}

}  // namespace pyhost
