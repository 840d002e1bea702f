#include "runtime/segment/host_table.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/os/process.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/segment.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

// HostRecord::life, taken apart.
struct Life {
  HostState state = HostState::kFree;
  uint32_t generation = 0;
  bool recovered = false;
  HostId party;

  static constexpr int kGenerationShift = 5;
  static constexpr int kRecoveredShift = 23;
  static constexpr int kPartyShift = 24;

  static Life Of(uint64_t word) {
    Life life;
    // An undefined state (damaged memory) counts as Free: nobody can be reached there.
    const uint64_t state = word & 7;
    life.state = state <= static_cast<uint64_t>(HostState::kRecovering) ? static_cast<HostState>(state)
                                                                        : HostState::kFree;
    life.generation = word >> kGenerationShift & HostId::kMaxGeneration;
    life.recovered = (word >> kRecoveredShift & 1) != 0;
    life.party = HostId::FromValue(word >> kPartyShift & 0x3fffffff);
    return life;
  }
  uint64_t Word() const {
    return static_cast<uint64_t>(state) | static_cast<uint64_t>(generation) << kGenerationShift |
           static_cast<uint64_t>(recovered) << kRecoveredShift |
           static_cast<uint64_t>(party.value()) << kPartyShift;
  }
  bool running() const { return state == HostState::kEmbryo || state == HostState::kRunning; }
};

// HostRecord::exit and ::pid: a value and the life of the slot that it is about.
uint64_t Tagged(uint32_t generation, uint32_t value) { return uint64_t{generation} << 32 | value; }
uint32_t ValueIn(uint64_t word, HostId id) { return word >> 32 == id.generation() ? static_cast<uint32_t>(word) : 0; }

// Replaces the value as long as `may_replace` it; false when that life of the slot is over.
template <typename MayReplace>
bool SetTagged(HostRecord& record, std::atomic<uint64_t> HostRecord::*word, HostId id, uint32_t value,
               MayReplace may_replace) {
  uint64_t now = (record.*word).load();
  do {
    // The tag of an earlier life is still there if the starter died before it filled the record.  Life is read after the
    // word: while it lasts, a strange tag is an earlier one.
    if (now >> 32 != id.generation() && Life::Of(record.life.load()).generation != id.generation()) return false;
    if (!may_replace(ValueIn(now, id))) return true;
  } while (!(record.*word).compare_exchange_weak(now, Tagged(id.generation(), value)));
  return true;
}

// Moves the record on from `from` to `to`; false when it has moved meanwhile.
bool Move(HostRecord& record, const Life& from, const Life& to) {
  uint64_t expected = from.Word();
  return record.life.compare_exchange_strong(expected, to.Word());
}

template <size_t kBytes>
void WriteText(SharedText<kBytes>& shared, std::string_view text) {
  char padded[kBytes] = {};
  std::copy_n(text.begin(), std::min(text.size(), kBytes), padded);
  shared.version.fetch_add(1, std::memory_order_acq_rel);
  for (size_t i = 0; i < kBytes / 8; ++i) {
    uint64_t word;
    memcpy(&word, padded + 8 * i, 8);
    shared.words[i].store(word, std::memory_order_release);
  }
  shared.version.fetch_add(1, std::memory_order_release);
}

// A text that is being written all the time (or whose writer died) may come back mixed.
template <size_t kBytes>
std::string ReadText(const SharedText<kBytes>& shared) {
  char bytes[kBytes];
  for (int attempt = 0; attempt < 100; ++attempt) {
    const uint32_t before = shared.version.load(std::memory_order_acquire);
    for (size_t i = 0; i < kBytes / 8; ++i) {
      const uint64_t word = shared.words[i].load(std::memory_order_acquire);
      memcpy(bytes + 8 * i, &word, 8);
    }
    if (before % 2 == 0 && shared.version.load(std::memory_order_acquire) == before) break;
  }
  return std::string(bytes, strnlen(bytes, kBytes));
}

pid_t PidOf(const HostRecord& record, HostId id) {
  return static_cast<pid_t>(ValueIn(record.pid.load(std::memory_order_acquire), id));
}

uint64_t BitOf(HostId host) { return uint64_t{1} << (host.slot() % 64); }

}  // namespace

// ---- ExitStatus, HostInfo -------------------------------------------------------------------------------------

int ExitStatus::ExitCode() const {
  switch (kind) {
    case Kind::kAlive: return 0;
    case Kind::kExited: return value;
    case Kind::kSignaled: return -value;
    case Kind::kLost:
    case Kind::kNotStarted:
    case Kind::kBecameProgram: return 255;
  }
  return 255;
}

std::string ExitStatus::ToString() const {
  switch (kind) {
    case Kind::kAlive: return "running";
    case Kind::kExited: return absl::StrCat("exited with code ", value);
    case Kind::kSignaled: {
      const char* name = sigabbrev_np(value);
      if (name == nullptr) return absl::StrCat("killed by signal ", value);
      return absl::StrCat("killed by SIG", name);
    }
    case Kind::kLost: return "gone, exit code unknown";
    case Kind::kNotStarted: return absl::StrCat("not started: ", strerrordesc_np(value) != nullptr
                                                                    ? strerrordesc_np(value)
                                                                    : "unknown error");
    case Kind::kBecameProgram: return "became another program";
  }
  return "ended in an unknown way";
}

uint32_t ExitStatus::Encode() const {
  if (kind == Kind::kAlive) return 0;
  return static_cast<uint32_t>(kind) << 24 | (static_cast<uint32_t>(value) & 0xffffff);
}

ExitStatus ExitStatus::Decode(uint32_t word) {
  const uint32_t kind = word >> 24;
  if (word == 0) return {};
  if (kind == 0 || kind > static_cast<uint32_t>(Kind::kBecameProgram)) return {Kind::kLost, 0};
  return {static_cast<Kind>(kind), static_cast<int>(word & 0xffffff)};
}

std::string HostInfo::Describe() const {
  std::string text = absl::StrCat("host ", id.slot());
  if (!name.empty()) absl::StrAppend(&text, " '", name, "'");
  if (pid != 0) absl::StrAppend(&text, " (pid ", pid, ")");
  return text;
}

// ---- Records ----------------------------------------------------------------------------------------------------

HostTable::HostTable(const SegmentMap* map) : map_(map) {}

uint32_t HostTable::capacity() const { return map_->max_hosts(); }

uint32_t HostTable::slots_used() const {
  return std::min(map_->header().hosts_used.load(std::memory_order_acquire), capacity());
}

HostRecord* HostTable::RecordOf(HostId id) const {
  if (!id || id.slot() >= capacity()) return nullptr;
  HostRecord& record = map_->host(id.slot());
  const Life life = Life::Of(record.life.load(std::memory_order_acquire));
  return life.generation == id.generation() && life.state != HostState::kFree ? &record : nullptr;
}

absl::Status HostTable::NoSuchHost(HostId id) const {
  return absl::NotFoundError(absl::StrCat(id.ToString(), " is not in the session (any more)"));
}

absl::StatusOr<HostId> HostTable::CreateEmbryo(const EmbryoOptions& options) {
  for (uint32_t slot = 0; slot < capacity(); ++slot) {
    HostRecord& record = map_->host(slot);
    const Life free = Life::Of(record.life.load(std::memory_order_acquire));
    if (free.state != HostState::kFree) continue;
    Life embryo;
    embryo.state = HostState::kEmbryo;
    embryo.generation = free.generation % HostId::kMaxGeneration + 1;
    embryo.party = options.parent;
    uint64_t expected = record.life.load(std::memory_order_acquire);
    if (Life::Of(expected).Word() != free.Word()) continue;
    if (!record.life.compare_exchange_strong(expected, embryo.Word())) continue;
    PYHOST_CRASH_POINT("host-embryo-claimed");
    const HostId id(slot, embryo.generation);
    FillEmbryo(record, id, options);
    return id;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("all ", capacity(), " hosts of the session are in use (max_hosts)"));
}

void HostTable::FillEmbryo(HostRecord& record, HostId id, const EmbryoOptions& options) {
  uint32_t used = map_->header().hosts_used.load(std::memory_order_relaxed);
  while (used <= id.slot() && !map_->header().hosts_used.compare_exchange_weak(used, id.slot() + 1)) {
  }
  record.exit.store(Tagged(id.generation(), 0));
  record.pid.store(Tagged(id.generation(), 0));
  record.start_time.store(0, std::memory_order_relaxed);
  record.pid_namespace.store(0, std::memory_order_relaxed);
  record.parent.store(options.parent.value(), std::memory_order_relaxed);
  record.flags.store(options.flags, std::memory_order_relaxed);
  record.payload.store(options.payload.value(), std::memory_order_release);
  WriteText(record.running, "");
  WriteText(record.name, options.name);
  if (options.parent) Watch(id, options.parent);
}

absl::Status HostTable::SetPid(HostId id, pid_t pid) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return NoSuchHost(id);
  // A record that its own process has adopted already knows better.
  if (Life::Of(record->life.load(std::memory_order_acquire)).state != HostState::kEmbryo) return absl::OkStatus();
  StorePid(*record, id, pid);
  return absl::OkStatus();
}

void HostTable::StorePid(HostRecord& record, HostId id, pid_t pid) {
  const absl::StatusOr<ProcessStat> stat = GetProcessStat(pid);
  record.start_time.store(stat.ok() ? stat->start_time : 0, std::memory_order_relaxed);
  record.pid_namespace.store(PidNamespace(), std::memory_order_relaxed);
  SetTagged(record, &HostRecord::pid, id, static_cast<uint32_t>(pid), [](uint32_t) { return true; });
  record.changed.NotifyAll();
}

absl::Status HostTable::Adopt(HostId id) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return NoSuchHost(id);
  Life embryo = Life::Of(record->life.load(std::memory_order_acquire));
  if (embryo.generation != id.generation() || embryo.state != HostState::kEmbryo) {
    return absl::FailedPreconditionError(absl::StrCat(id.ToString(), " is no embryo: it runs already or has ended"));
  }
  // Its forker may have been quicker.
  const bool known = PidOf(*record, id) == getpid() && record->start_time.load(std::memory_order_relaxed) != 0 &&
                     record->pid_namespace.load(std::memory_order_relaxed) == PidNamespace();
  if (!known) StorePid(*record, id, getpid());
  PYHOST_CRASH_POINT("host-adopting");
  Life running = embryo;
  running.state = HostState::kRunning;
  if (!Move(*record, embryo, running)) {
    return absl::FailedPreconditionError(absl::StrCat(id.ToString(), " was given up before it was adopted"));
  }
  return absl::OkStatus();
}

// ---- Reading ------------------------------------------------------------------------------------------------------

absl::StatusOr<HostInfo> HostTable::Info(HostId id) const {
  const HostRecord* record = RecordOf(id);
  if (record == nullptr) return NoSuchHost(id);
  HostInfo info;
  info.id = id;
  info.pid = PidOf(*record, id);
  info.start_time = record->start_time.load(std::memory_order_relaxed);
  info.parent = HostId::FromValue(record->parent.load(std::memory_order_relaxed));
  info.flags = record->flags.load(std::memory_order_relaxed);
  info.exit = ExitStatus::Decode(ValueIn(record->exit.load(std::memory_order_acquire), id));
  info.name = ReadText(record->name);
  info.running = ReadText(record->running);
  // Last: what was read belongs to this life if it still lasts.
  const Life life = Life::Of(record->life.load(std::memory_order_acquire));
  if (life.generation != id.generation() || life.state == HostState::kFree) return NoSuchHost(id);
  info.state = life.state;
  if (life.state == HostState::kEmbryo) info.parent = life.party;  // the field may not be filled yet
  return info;
}

std::vector<HostInfo> HostTable::List() const {
  std::vector<HostInfo> hosts;
  for (uint32_t slot = 0; slot < slots_used(); ++slot) {
    const Life life = Life::Of(map_->host(slot).life.load(std::memory_order_acquire));
    absl::StatusOr<HostInfo> info = Info(HostId(slot, life.generation));
    if (info.ok()) hosts.push_back(*std::move(info));
  }
  return hosts;
}

bool HostTable::IsRunning(HostId id) const {
  if (!id || id.slot() >= capacity()) return false;
  const Life life = Life::Of(map_->host(id.slot()).life.load(std::memory_order_acquire));
  return life.generation == id.generation() && life.running();
}

bool HostMayBeAlive(const HostTable& hosts, HostId id) { return hosts.IsRunning(id); }

bool HostTable::ProcessIsGone(HostId id) const {
  const HostRecord* record = RecordOf(id);
  if (record == nullptr) return true;
  const pid_t pid = PidOf(*record, id);
  const uint64_t start_time = record->start_time.load(std::memory_order_relaxed);
  const uint64_t pid_namespace = record->pid_namespace.load(std::memory_order_relaxed);
  if (!IsRunning(id)) return true;
  // From another pid namespace the number names somebody else, or nobody.
  return pid != 0 && pid_namespace == PidNamespace() && pyhost::ProcessIsGone(pid, start_time);
}

void HostTable::SetName(HostId id, std::string_view name) {
  if (HostRecord* record = RecordOf(id)) WriteText(record->name, name);
}

void HostTable::SetRunning(HostId id, std::string_view function) {
  if (HostRecord* record = RecordOf(id)) WriteText(record->running, function);
}

void HostTable::SetPayload(HostId id, Handle payload) {
  if (HostRecord* record = RecordOf(id)) record->payload.store(payload.value(), std::memory_order_release);
}

Handle HostTable::payload(HostId id) const {
  const HostRecord* record = RecordOf(id);
  return record == nullptr ? Handle() : Handle::FromValue(record->payload.load(std::memory_order_acquire));
}

// ---- The end ------------------------------------------------------------------------------------------------------

void HostTable::SetExit(HostId id, ExitStatus status, bool truth) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr || !status.ended()) return;
  // "gone" is no better than what is known, and who became a program may have a reaper that was quicker.
  const bool overwrites = truth && status.kind != ExitStatus::Kind::kLost && status.settled();
  const auto may_replace = [=](uint32_t known) { return overwrites || known == 0; };
  if (!SetTagged(*record, &HostRecord::exit, id, status.Encode(), may_replace)) return;
  if (!truth) return;
  PYHOST_CRASH_POINT("host-exit-before-ended");
  Life life = Life::Of(record->life.load(std::memory_order_acquire));
  while (life.generation == id.generation() && life.running()) {
    Life ended = life;
    ended.state = HostState::kEnded;
    if (Move(*record, life, ended)) break;
    life = Life::Of(record->life.load(std::memory_order_acquire));
  }
  record->changed.NotifyAll();
}

ExitStatus HostTable::Exit(HostId id) const {
  const HostRecord* record = RecordOf(id);
  if (record == nullptr) return {ExitStatus::Kind::kLost, 0};
  const ExitStatus exit = ExitStatus::Decode(ValueIn(record->exit.load(std::memory_order_acquire), id));
  return RecordOf(id) == nullptr ? ExitStatus{ExitStatus::Kind::kLost, 0} : exit;
}

absl::StatusOr<ExitStatus> HostTable::WaitForExit(HostId id, Wait wait) const {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return Exit(id);
  const absl::Status status = record->changed.Await(id, wait, [&] { return Exit(id).settled() && !IsRunning(id); });
  if (!status.ok()) return status;
  return Exit(id);
}

absl::Status HostTable::WaitForRecovery(HostId id, Wait wait) const {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return absl::OkStatus();
  return record->changed.Await(id, wait, [&] {
    const Life life = Life::Of(record->life.load(std::memory_order_acquire));
    return life.generation != id.generation() || life.state == HostState::kFree || life.recovered;
  });
}

absl::StatusOr<pid_t> HostTable::WaitForPid(HostId id, Wait wait) const {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return NoSuchHost(id);
  const absl::Status status = record->changed.Await(id, wait, [&] {
    return PidOf(*record, id) != 0 || Exit(id).ended();
  });
  if (!status.ok()) return status;
  const pid_t pid = PidOf(*record, id);
  if (RecordOf(id) == nullptr) return NoSuchHost(id);
  if (pid != 0) return pid;
  return absl::FailedPreconditionError(absl::StrCat(id.ToString(), " ", Exit(id).ToString()));
}

// ---- Recovery -------------------------------------------------------------------------------------------------------

bool HostTable::BeginRecovery(HostId id, HostId me) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return false;
  const Life life = Life::Of(record->life.load(std::memory_order_acquire));
  if (life.generation != id.generation() || life.recovered) return false;
  const bool abandoned = life.state == HostState::kRecovering &&
                         (life.party == me || !IsRunning(life.party) || ProcessIsGone(life.party));
  if (life.state != HostState::kEnded && !abandoned) return false;
  Life recovering = life;
  recovering.state = HostState::kRecovering;
  recovering.party = me;
  // Replacing oneself changes nothing: the recoverer starts over.
  if (life.Word() != recovering.Word() && !Move(*record, life, recovering)) return false;
  PYHOST_CRASH_POINT("host-recovering");
  return true;
}

void HostTable::FinishRecovery(HostId id) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr) return;
  DropWatches(id);
  const Life recovering = Life::Of(record->life.load(std::memory_order_acquire));
  if (recovering.generation != id.generation() || recovering.state != HostState::kRecovering) return;
  Life recovered = recovering;
  recovered.state = HostState::kEnded;
  recovered.recovered = true;
  recovered.party = HostId();
  record->payload.store(0, std::memory_order_release);
  PYHOST_CRASH_POINT("host-recovery-payload-cleared");
  if (!Move(*record, recovering, recovered)) return;
  PYHOST_CRASH_POINT("host-recovered");
  FreeIfUnwatched(*record, id);
  record->changed.NotifyAll();
}

// After `recovered` was set, and after a watcher left: whichever comes last sees both.
void HostTable::FreeIfUnwatched(HostRecord& record, HostId id) {
  const Life life = Life::Of(record.life.load());
  if (life.generation != id.generation() || life.state != HostState::kEnded || !life.recovered) return;
  const std::atomic<uint64_t>* watchers = map_->watchers(id.slot());
  for (uint32_t word = 0; word < map_->holder_words(); ++word) {
    if (watchers[word].load() != 0) return;
  }
  Life free;
  free.generation = life.generation;
  Move(record, life, free);
}

void HostTable::Watch(HostId id, HostId watcher) {
  if (RecordOf(id) == nullptr || watcher.slot() >= capacity()) return;
  map_->watchers(id.slot())[watcher.slot() / 64].fetch_or(BitOf(watcher));
}

void HostTable::Unwatch(HostId id, HostId watcher) {
  HostRecord* record = RecordOf(id);
  if (record == nullptr || watcher.slot() >= capacity()) return;
  map_->watchers(id.slot())[watcher.slot() / 64].fetch_and(~BitOf(watcher));
  FreeIfUnwatched(*record, id);
}

void HostTable::DropWatches(HostId dead_watcher) {
  for (uint32_t slot = 0; slot < slots_used(); ++slot) {
    const Life life = Life::Of(map_->host(slot).life.load(std::memory_order_acquire));
    Unwatch(HostId(slot, life.generation), dead_watcher);
  }
}

}  // namespace pyhost
