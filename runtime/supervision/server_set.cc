#include "runtime/supervision/server_set.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/segment/object_table.h"
#include "runtime/supervision/start_attributes.h"

namespace pyhost {
namespace {

constexpr int kMaxDeaths = 3;

}  // namespace

ServerSet::ServerSet(Segment* segment, SessionTicket ticket, Launcher* launcher, EventLoop* loop, HostWatch* watch)
    : segment_(segment), ticket_(std::move(ticket)), launcher_(launcher), loop_(loop), watch_(watch) {}

ServerSet::~ServerSet() { CloseAll(); }

bool ServerSet::Has(HostId host) const {
  return std::any_of(servers_.begin(), servers_.end(),
                     [&](const auto& entry) { return entry.second->in_flight.contains(host.value()); });
}

bool ServerSet::idle() const {
  return std::all_of(servers_.begin(), servers_.end(), [](const auto& entry) { return entry.second->in_flight.empty(); });
}

void ServerSet::Start(const ControlMessage& message, std::vector<UniqueFd> fds) {
  HostId host = HostId::FromValue(message.host);
  absl::StatusOr<Server*> server = Find(message.server, segment_->hosts().payload(host), fds);
  if (!server.ok()) {
    Fail(host, server.status());
    return;
  }
  (*server)->in_flight[message.host] = Request{message, std::move(fds)};
  Flush(*server);
}

void ServerSet::Warm(const ControlMessage& message, std::vector<UniqueFd> fds) {
  HostId question = HostId::FromValue(message.host);
  absl::StatusOr<Server*> server = Find(message.server, segment_->hosts().payload(question), fds);
  if (!server.ok()) return Fail(question, server.status());
  segment_->hosts().SetExit(question, {ExitStatus::Kind::kExited, 0}, /*truth=*/true);
  watch_->Recover(question);
}

absl::StatusOr<ServerSet::Server*> ServerSet::Find(uint64_t key, Handle payload, const std::vector<UniqueFd>& fds) {
  std::unique_ptr<Server>& slot = servers_[key];
  if (slot != nullptr) return slot.get();
  auto server = std::make_unique<Server>();
  auto describe = [&]() -> absl::Status {
    PYHOST_ASSIGN_OR_RETURN(auto block, segment_->objects().Block(payload));
    PYHOST_ASSIGN_OR_RETURN(StartPayload parsed, StartPayload::Parse(block));
    PYHOST_ASSIGN_OR_RETURN(server->spec, ServerSpec::Decode(parsed.server));
    PYHOST_ASSIGN_OR_RETURN(StartAttributes attributes, StartAttributes::Decode(parsed.attributes));
    server->environment = std::move(attributes.environment);
    server->standard = std::move(attributes.descriptors);
    return absl::OkStatus();
  };
  absl::Status status = describe();
  server->key = key;
  if (status.ok()) status = Launch(server.get(), fds);
  if (!status.ok()) {
    servers_.erase(key);
    return status;
  }
  slot = std::move(server);
  return slot.get();
}

absl::Status ServerSet::Launch(Server* server, const std::vector<UniqueFd>& fds) {
  PYHOST_ASSIGN_OR_RETURN(auto ends, DatagramSocketPair());
  PYHOST_ASSIGN_OR_RETURN(
      server->id, segment_->hosts().CreateEmbryo({ticket_.supervisor, static_cast<uint32_t>(HostFlag::kServer),
                                                  absl::StrCat("fork server for ", server->spec.method), Handle()}));
  absl::StatusOr<LaunchOptions> options = OptionsFor(*server, ends.second.get(), fds);
  absl::StatusOr<pid_t> pid = options.ok() ? launcher_->Launch(*options) : options.status();
  if (!pid.ok()) {
    segment_->hosts().SetExit(server->id, {ExitStatus::Kind::kNotStarted, ErrnoOf(pid.status())}, /*truth=*/true);
    watch_->Recover(server->id);
    return Annotate(pid.status(), absl::StrCat("start the fork server for ", server->spec.method));
  }
  PYHOST_CRASH_POINT("supervisor-launched-server");
  server->pid = *pid;
  server->socket = std::move(ends.first);
  segment_->hosts().SetPid(server->id, *pid).IgnoreError();
  watch_->Add(server->id, UniqueFd());
  PYHOST_ASSIGN_OR_RETURN(server->token,
                          loop_->Watch(server->socket.get(), [this, key = server->key] { OnMessages(key); }));
  return absl::OkStatus();
}

absl::StatusOr<LaunchOptions> ServerSet::OptionsFor(const Server& server, int socket, const std::vector<UniqueFd>& fds) {
  SessionTicket ticket = ticket_;
  ticket.me = server.id;
  ticket.program = server.spec.program;
  LaunchOptions options;
  options.program = server.spec.program;
  options.environment = server.environment;
  options.arguments = {absl::StrCat("pyhost-", server.spec.method, "-server"), "--pyhost-internal=server",
                       absl::StrCat("--server-end=", socket)};
  for (std::string& word : ticket.ToArguments()) options.arguments.push_back(std::move(word));
  for (std::string& word : server.spec.ToArguments()) options.arguments.push_back(std::move(word));
  options.descriptors = {{socket, socket}, {ticket.segment_fd, ticket.segment_fd}, {ticket.control_fd, ticket.control_fd}};
  for (size_t i = 0; i < fds.size() && i < server.standard.size(); ++i) {
    int number = server.standard[i];
    if (number == StartAttributes::kWorkingDirectory) {
      options.arguments.push_back(absl::StrCat("--working-directory=", fds[i].get()));
      options.descriptors.push_back({fds[i].get(), fds[i].get()});
    } else if (number >= 0 && number <= 2) {
      options.descriptors.push_back({fds[i].get(), number});
    }
  }
  return options;
}

void ServerSet::Flush(Server* server) {
  bool blocked = false;
  if (!server->socket.valid()) return;  // it is ending
  for (auto& [host, request] : server->in_flight) {
    if (request.sent) continue;
    std::vector<int> fds;
    std::transform(request.fds.begin(), request.fds.end(), std::back_inserter(fds),
                   [](const UniqueFd& fd) { return fd.get(); });
    absl::Status status = SendDatagram(server->socket.get(), AsBytes(request.message), fds, Wait::Try());
    if (absl::IsUnavailable(status)) return;  // its death is about to be noticed
    if (absl::IsDeadlineExceeded(status)) {
      blocked = true;
      break;
    }
    request.sent = true;
    if (!status.ok()) Fail(HostId::FromValue(host), status);
    PYHOST_CRASH_POINT("supervisor-forwarded-start");
  }
  loop_->WantWritable(server->token, blocked);
}

void ServerSet::OnMessages(uint64_t key) {
  auto found = servers_.find(key);
  if (found == servers_.end() || !found->second->socket.valid()) return;
  Server* server = found->second.get();
  for (;;) {
    ControlMessage answer = {};
    auto received = ReceiveDatagram(server->socket.get(), std::as_writable_bytes(std::span(&answer, 1)));
    if (!received.ok() || received->would_block) break;
    if (received->end_of_file) {
      // It is dying; SIGCHLD brings the rest.
      loop_->Forget(std::exchange(server->token, 0));
      return;
    }
    if (received->size == sizeof(answer)) OnAnswer(server, answer);
  }
  Flush(server);
}

void ServerSet::OnAnswer(Server* server, const ControlMessage& answer) {
  HostId host = HostId::FromValue(answer.host);
  if (server->in_flight.erase(answer.host) == 0) return;  // nothing that it was asked
  server->deaths = 0;
  if (answer.type == MessageType::kForked) watch_->Add(host, UniqueFd());
  if (answer.type == MessageType::kFailed) watch_->Recover(host);
}

ServerSet::Server* ServerSet::FindByPid(pid_t pid) {
  for (auto& [key, server] : servers_) {
    if (server->pid == pid) return server.get();
  }
  return nullptr;
}

bool ServerSet::OnReaped(pid_t pid, ExitStatus status) {
  Server* server = FindByPid(pid);
  if (server == nullptr) return false;
  OnMessages(server->key);  // what it still said
  OnDeath(server, status);
  return true;
}

void ServerSet::OnDeath(Server* server, ExitStatus status) {
  loop_->Forget(std::exchange(server->token, 0));
  server->socket.reset();
  server->pid = 0;
  segment_->hosts().SetExit(server->id, status, /*truth=*/true);
  std::erase_if(server->in_flight, [&](auto& entry) {
    HostId host = HostId::FromValue(entry.first);
    absl::StatusOr<HostInfo> info = segment_->hosts().Info(host);
    if (info.ok() && info->pid != 0) watch_->Add(host, UniqueFd());
    return !info.ok() || info->pid != 0 || info->exit.ended();
  });
  const bool leaves_main = LeavesMainToChildren(server, status);
  if (closing_ || (server->in_flight.empty() && !leaves_main)) {
    // The next start launches another one.
    servers_.erase(server->key);
  } else if (leaves_main || ++server->deaths < kMaxDeaths) {
    Relaunch(server);
  } else {
    FailAll(server, absl::UnavailableError(absl::StrCat("the fork server for ", server->spec.method, " ",
                                                        status.ToString(), " before it could start anything")));
    servers_.erase(server->key);
  }
}

bool ServerSet::LeavesMainToChildren(Server* server, ExitStatus status) {
  const bool asked_for = status == ExitStatus{ExitStatus::Kind::kExited, kExitToLeaveMainToChildren};
  return asked_for && std::erase(server->spec.preload, ServerSpec::kMain) > 0;
}

void ServerSet::Relaunch(Server* server) {
  // What came with the question for a server is not kept; nothing that the program sees depends on it.
  const std::vector<UniqueFd> none;
  absl::Status launched = Launch(server, server->in_flight.empty() ? none : server->in_flight.begin()->second.fds);
  if (launched.ok()) {
    for (auto& [host, request] : server->in_flight) request.sent = false;
    Flush(server);
    return;
  }
  FailAll(server, launched);
  servers_.erase(server->key);
}

void ServerSet::FailAll(Server* server, const absl::Status& why) {
  for (auto& [host, request] : server->in_flight) Fail(HostId::FromValue(host), why);
}

void ServerSet::Fail(HostId host, const absl::Status& why) {
  segment_->hosts().SetRunning(host, std::string(why.message()));
  segment_->hosts().SetExit(host, {ExitStatus::Kind::kNotStarted, ErrnoOf(why)}, /*truth=*/true);
  watch_->Recover(host);
}

void ServerSet::Stop(HostId id) {
  for (auto& [key, server] : servers_) {
    if (!(server->id == id)) continue;
    loop_->Forget(std::exchange(server->token, 0));
    server->socket.reset();
  }
}

void ServerSet::CloseAll() {
  closing_ = true;
  for (auto& [key, server] : servers_) {
    loop_->Forget(std::exchange(server->token, 0));
    server->socket.reset();
  }
}

void ServerSet::KillAll() {
  for (auto& [key, server] : servers_) {
    if (server->pid > 0) kill(server->pid, SIGKILL);
  }
}

}  // namespace pyhost
