#include "runtime/sync/mutex.h"

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/cpu.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/sync/sync_layout.h"
#include "runtime/sync/thread_token.h"

namespace pyhost {
namespace {

// The word of mutex.h's truth table.
class Word {
 public:
  constexpr explicit Word(uint64_t bits) : bits_(bits) {}
  static Word Held(HostId owner, uint32_t thread) {
    return Word(static_cast<uint64_t>(thread) << 32 | owner.value());
  }
  static constexpr Word OwnerDied() { return Word(kMark); }

  constexpr HostId owner() const { return HostId::FromValue(bits_ & kOwner); }
  constexpr bool contended() const { return (bits_ & kContended) != 0; }
  constexpr bool free() const { return (bits_ & (kOwner | kMark)) == 0; }
  constexpr bool owner_died() const { return (bits_ & (kOwner | kMark)) == kMark; }
  constexpr bool kept() const { return owner() && (bits_ & kMark) != 0; }
  bool IsOf(HostId host, uint32_t thread) const {
    return (bits_ & ~kContended) == Held(host, thread).bits_;
  }

  constexpr Word Contended() const { return Word(bits_ | kContended); }
  constexpr Word Kept() const { return Word(bits_ | kMark); }
  constexpr Word ContendedLike(Word other) const {
    return Word(bits_ | (other.bits_ & kContended));
  }
  constexpr uint64_t bits() const { return bits_; }

 private:
  static constexpr uint64_t kOwner = (uint64_t{1} << 30) - 1;
  static constexpr uint64_t kMark = uint64_t{1} << 30;
  static constexpr uint64_t kContended = uint64_t{1} << 31;
  uint64_t bits_;
};

Word Load(const MutexState& state) { return Word(state.word.load(std::memory_order_acquire)); }

bool Replace(MutexState& state, Word from, Word to) {
  uint64_t expected = from.bits();
  return state.word.compare_exchange_strong(expected, to.bits(), std::memory_order_acq_rel,
                                            std::memory_order_relaxed);
}

// The word was contended and is free now (or says that its owner died): somebody's turn.
void WakeNext(MutexState& state, Word was) {
  PYHOST_CRASH_POINT("mutex-before-wake");
  if (was.contended()) state.released.Notify();
}

absl::Status OwnerDiedError(Handle handle) {
  return absl::AbortedError(absl::StrFormat(
      "%s: the host that held it was killed; what it protects may be half done. It is free now",
      handle.ToString()));
}

enum class Attempt { kAcquired, kOwnerDied, kBusy };

Attempt TryAcquire(MutexState& state, HostId me, uint32_t thread) {
  for (;;) {
    const Word word = Load(state);
    if (word.free()) {
      if (Replace(state, word, Word::Held(me, thread).ContendedLike(word))) return Attempt::kAcquired;
    } else if (word.owner_died()) {
      if (!Replace(state, word, Word(0))) continue;
      WakeNext(state, word);
      return Attempt::kOwnerDied;
    } else {
      return Attempt::kBusy;
    }
  }
}

// Like TryAcquire, for one who may sleep: leaves the word contended, so that the next release looks for sleepers.
Attempt TryAcquireWaiting(MutexState& state, HostId me, uint32_t thread) {
  for (;;) {
    const Word word = Load(state);
    if (word.free()) {
      if (Replace(state, word, Word::Held(me, thread).Contended())) return Attempt::kAcquired;
      continue;
    }
    if (word.owner_died()) return TryAcquire(state, me, thread);
    if (word.contended() || Replace(state, word, word.Contended())) return Attempt::kBusy;
  }
}

// For an owner in another process that is about to release: what is done under a lock mostly takes less time than giving
// up the interpreter and taking it back.
//
// It looks seldom, and leaves no mark.  So the owner can take the mutex several times in a row at its full speed: both get more
// done than if the words of the mutex changed sides with each acquisition.
Attempt TryForAMoment(MutexState& state, HostId me, uint32_t thread) {
  constexpr int kLooks = 4, kPausesPerLook = 32;  // 1 to 4 us in all
  if (!SpinningMayPay()) return Attempt::kBusy;
  for (int look = 0; look < kLooks && Load(state).owner() != me; ++look) {
    for (int pause = 0; pause < kPausesPerLook; ++pause) SpinPause();
    if (const Attempt attempt = TryAcquire(state, me, thread); attempt != Attempt::kBusy) return attempt;
  }
  return Attempt::kBusy;
}

// The owner's host is gone: says so in the word.  What its exit tells decides between the two.
void MarkOwnerGone(MutexState& state, const HostTable& hosts, HostId owner) {
  for (;;) {
    const Word word = Load(state);
    if (word.owner() != owner || word.kept()) return;
    const ExitStatus::Kind end = hosts.Exit(owner).kind;
    const bool left = end == ExitStatus::Kind::kExited || end == ExitStatus::Kind::kBecameProgram;
    // Contended in any case: who takes the news of the death leaves the mutex free, and must wake the next.
    const Word to = left ? word.Kept() : Word::OwnerDied().Contended();
    if (!Replace(state, word, to)) continue;
    PYHOST_CRASH_POINT("mutex-owner-marked");
    if (!left) WakeNext(state, to);
    return;
  }
}

// For a waiter whose patience ended: has the owner died without anybody noticing?  A process that is gone but
// has no exit word yet gets one more patience, for its reaper to say how it ended.
class OwnerWatch {
 public:
  void Look(MutexState& state, const HostTable& hosts) {
    const Word word = Load(state);
    const HostId owner = word.owner();
    if (!owner || word.kept()) return;
    const bool ended = !hosts.IsRunning(owner) || hosts.Exit(owner).ended();
    if (!ended && !hosts.ProcessIsGone(owner)) return;
    if (ended || suspect_ == owner) MarkOwnerGone(state, hosts, owner);
    suspect_ = owner;
  }

 private:
  HostId suspect_;
};

MutexState* StateOf(Segment& segment, Handle handle) {
  absl::StatusOr<MutexState*> state = segment.objects().StateAs<MutexState>(handle);
  return state.ok() ? *state : nullptr;
}

void Recover(Segment& segment, HostId, Handle handle, HostId dead) {
  MutexState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  MarkOwnerGone(*state, segment.hosts(), dead);
  if (segment.objects().IsHeld(handle, dead)) state->released.Recover(dead);
}

}  // namespace

void RegisterMutexKind() {
  // Also where it dropped its handle of the mutex that it had locked: how it ended is known only now.
  RegisterKind(ObjectKind::kMutex,
               {.destroy = nullptr, .recover = Recover, .recover_unheld = true, .visit_transits = nullptr});
}

absl::StatusOr<Mutex> Mutex::Create(Segment& segment, HostId me, Type type) {
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kMutex, 0, me));
  PYHOST_ASSIGN_OR_RETURN(MutexState * state, segment.objects().StateAs<MutexState>(handle));
  state->type.store(static_cast<uint32_t>(type), std::memory_order_relaxed);
  return Mutex(&segment, me, handle, state);
}

absl::StatusOr<Mutex> Mutex::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kMutex) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no mutex", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(MutexState * state, segment.objects().StateAs<MutexState>(handle));
  return Mutex(&segment, me, handle, state);
}

Mutex::Type Mutex::type() const {
  return state_->type.load(std::memory_order_relaxed) == static_cast<uint32_t>(Type::kRecursive)
             ? Type::kRecursive
             : Type::kPlain;
}

absl::Status Mutex::Acquire(Wait wait) {
  const uint32_t thread = ThreadToken();
  const Word word = Load(*state_);
  if (word.bits() == 0 && Replace(*state_, word, Word::Held(me_, thread))) {
    PYHOST_CRASH_POINT("mutex-acquired");
    state_->depth.store(1, std::memory_order_relaxed);
    return absl::OkStatus();
  }
  if (type() == Type::kRecursive && word.IsOf(me_, thread)) {
    const uint32_t depth = state_->depth.load(std::memory_order_relaxed);
    if (depth == UINT32_MAX) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("%s: acquired too often", handle_.ToString()));
    }
    state_->depth.store(depth + 1, std::memory_order_relaxed);
    return absl::OkStatus();
  }
  return AcquireSlow(1, wait);
}

absl::Status Mutex::AcquireSlow(uint32_t depth, Wait wait) {
  const uint32_t thread = ThreadToken();
  Attempt attempt = TryAcquire(*state_, me_, thread);
  if (attempt == Attempt::kBusy && !wait.deadline.is_immediate()) attempt = TryForAMoment(*state_, me_, thread);
  if (attempt == Attempt::kBusy) {
    OwnerWatch watch;
    absl::Status waited = state_->released.Await(
        me_, wait,
        [&] {
          attempt = wait.deadline.is_immediate() ? TryAcquire(*state_, me_, thread)
                                                 : TryAcquireWaiting(*state_, me_, thread);
          return attempt != Attempt::kBusy;
        },
        [&] {
          watch.Look(*state_, segment_->hosts());
          return absl::OkStatus();
        },
        [&] { return Load(*state_).free(); });
    if (!waited.ok()) return Annotate(waited, absl::StrFormat("acquire %s", handle_.ToString()));
  }
  if (attempt == Attempt::kOwnerDied) return OwnerDiedError(handle_);
  PYHOST_CRASH_POINT("mutex-acquired");
  state_->depth.store(depth, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status Mutex::Release() {
  return type() == Type::kRecursive ? ReleaseRecursive() : ReleasePlain();
}

absl::Status Mutex::ReleaseRecursive() {
  if (!is_mine()) {
    return absl::FailedPreconditionError("attempt to release recursive lock not owned by thread");
  }
  const uint32_t depth = state_->depth.load(std::memory_order_relaxed);
  if (depth > 1) {
    state_->depth.store(depth - 1, std::memory_order_relaxed);
    return absl::OkStatus();
  }
  Free();
  return absl::OkStatus();
}

// The caller has the mutex: nobody else changes more than the contended bit.
void Mutex::Free() {
  state_->depth.store(0, std::memory_order_relaxed);
  PYHOST_CRASH_POINT("mutex-before-release");
  WakeNext(*state_, Word(state_->word.exchange(0, std::memory_order_acq_rel)));
}

// Anybody may do this, hence two may do it at a time: one of them is told that it is free already.
absl::Status Mutex::ReleasePlain() {
  for (;;) {
    const Word word = Load(*state_);
    if (word.free()) {
      return absl::FailedPreconditionError("semaphore or lock released too many times");
    }
    PYHOST_CRASH_POINT("mutex-before-release");
    if (!Replace(*state_, word, Word(0))) continue;
    WakeNext(*state_, word);
    return absl::OkStatus();
  }
}

absl::StatusOr<uint32_t> Mutex::ReleaseAll() {
  if (!is_mine()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s is not held by this thread", handle_.ToString()));
  }
  const uint32_t depth = type() == Type::kRecursive ? count() : 1;
  Free();
  return depth;
}

absl::Status Mutex::AcquireAll(uint32_t count, Wait wait) { return AcquireSlow(count, wait); }

bool Mutex::locked() const { return !Load(*state_).free(); }

bool Mutex::is_mine() const { return Load(*state_).IsOf(me_, ThreadToken()); }

uint32_t Mutex::count() const {
  if (Load(*state_).owner() != me_) return 0;
  return type() == Type::kRecursive ? state_->depth.load(std::memory_order_relaxed) : 1;
}

HostId Mutex::owner() const { return Load(*state_).owner(); }

}  // namespace pyhost
