#include "runtime/segment/object_table.h"

#include <string.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/block_allocator.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/segment.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

enum class CellState : uint64_t { kFree = 0, kClaimed = 1, kLive = 2, kDying = 3 };

// ObjectCell::life, taken apart.
struct Life {
  CellState state = CellState::kFree;
  ObjectKind kind = ObjectKind::kNone;
  uint32_t generation = 0;
  HostId host;

  static Life Of(uint64_t word) {
    return {static_cast<CellState>(word & 3), static_cast<ObjectKind>(word >> 2 & 0xff),
            static_cast<uint32_t>(word >> 10 & 0xffffff), HostId::FromValue(static_cast<uint32_t>(word >> 34))};
  }
  uint64_t Word() const {
    return static_cast<uint64_t>(state) | static_cast<uint64_t>(kind) << 2 | uint64_t{generation} << 10 |
           uint64_t{host.value()} << 34;
  }
  // The same life in another state.
  Life In(CellState next, HostId by = HostId()) const { return {next, kind, generation, by}; }
  Handle At(uint32_t index) const { return Handle(kind, generation, index); }
  bool Names(Handle handle) const { return kind == handle.kind() && generation == handle.generation(); }
};

Life LifeOf(const ObjectCell& cell) { return Life::Of(cell.life.load()); }

bool Move(ObjectCell& cell, const Life& from, const Life& to) {
  uint64_t expected = from.Word();
  return cell.life.compare_exchange_strong(expected, to.Word());
}

// ObjectCell::references.
constexpr uint64_t kOneChange = uint64_t{1} << 32;
uint32_t TransitOf(uint64_t references) { return static_cast<uint32_t>(references); }

uint64_t BitOf(HostId host) { return uint64_t{1} << (host.slot() % 64); }

// ---- Kinds ----

constexpr size_t kKinds = 256;
struct KindEntry {
  std::atomic<bool> known{false};
  ObjectKindOps ops;
};
std::array<KindEntry, kKinds>& Kinds() {
  static auto* kinds = new std::array<KindEntry, kKinds>;
  return *kinds;
}
const ObjectKindOps& OpsOf(ObjectKind kind) {
  static const ObjectKindOps kNone;
  const KindEntry& entry = Kinds()[static_cast<size_t>(kind)];
  return entry.known.load(std::memory_order_acquire) ? entry.ops : kNone;
}
// Memory and Chunk carry no handles and need no ops.
bool IsKnown(ObjectKind kind) {
  return kind == ObjectKind::kMemory || kind == ObjectKind::kChunk ||
         Kinds()[static_cast<size_t>(kind)].known.load(std::memory_order_acquire);
}

// ---- Objects whose destroy function is still to run on this thread ----
// Destroying one object may drop the last hold on others; a list instead of recursion, so that a long chain
// of queues in queues does not exhaust the stack.

struct PendingDestroy {
  const ObjectTable* table;
  Handle handle;
};
thread_local std::vector<PendingDestroy>* pending_destroys = nullptr;

}  // namespace

void RegisterKind(ObjectKind kind, const ObjectKindOps& ops) {
  KindEntry& entry = Kinds()[static_cast<size_t>(kind)];
  if (entry.known.load(std::memory_order_acquire)) return;
  entry.ops = ops;
  entry.known.store(true, std::memory_order_release);
}

// The allocator's lock for a scope: repairs after the death of an owner, and damage found meanwhile.
class ObjectTable::Locked {
 public:
  Locked(ObjectTable* table, HostId me) : table_(table), me_(me) {
    OwnerLock& lock = table_->map_->header().allocator.lock;
    if (lock.Lock(*table_->hosts_, me_) == OwnerLock::Acquired::kOwnerDied) table_->Rebuild();
  }
  ~Locked() {
    if (table_->blocks_->damaged()) table_->Rebuild();
    table_->map_->header().allocator.lock.Unlock(me_);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  ObjectTable* table_;
  HostId me_;
};

ObjectTable::ObjectTable(Segment* segment)
    : segment_(segment), map_(&segment->map()), hosts_(&segment->hosts()), blocks_(&segment->blocks()) {}

uint32_t ObjectTable::cells_used() const {
  return std::min(map_->header().allocator.cells_used.load(std::memory_order_acquire), map_->max_objects());
}

uint32_t ObjectTable::size() const {
  return map_->header().allocator.live_objects.load(std::memory_order_relaxed);
}

ObjectCell* ObjectTable::Find(Handle handle) const {
  if (!handle || handle.index() >= cells_used()) return nullptr;
  ObjectCell& cell = map_->cell(handle.index());
  const Life life = LifeOf(cell);
  // Dying too: its destroyer still uses it.
  const bool exists = life.state == CellState::kLive || life.state == CellState::kDying;
  return exists && life.Names(handle) ? &cell : nullptr;
}

absl::Status ObjectTable::NoSuchObject(Handle handle) const {
  return absl::NotFoundError(absl::StrCat(handle.ToString(), " does not exist (any more)"));
}

// ---- Cells (allocator's lock held) --------------------------------------------------------------------------------

absl::StatusOr<uint32_t> ObjectTable::TakeCell() {
  AllocatorState& state = map_->header().allocator;
  for (int attempt = 0; attempt < 2 && state.free_cell != 0; ++attempt) {
    const uint32_t index = state.free_cell - 1;
    if (index < cells_used() && LifeOf(map_->cell(index)).state == CellState::kFree) {
      state.free_cell = map_->cell(index).next_free;
      return index;
    }
    Rebuild();  // the list makes no sense
  }
  const uint32_t index = cells_used();
  if (index == map_->max_objects()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", map_->max_objects(), " objects of the session are in use (max_objects)"));
  }
  state.cells_used.store(index + 1, std::memory_order_release);
  return index;
}

void ObjectTable::ReturnCell(uint32_t index) {
  AllocatorState& state = map_->header().allocator;
  ObjectCell& cell = map_->cell(index);
  cell.block_offset.store(0);
  cell.block_size.store(0);
  PYHOST_CRASH_POINT("object-free-before-cell-returned");
  cell.life.store(LifeOf(cell).In(CellState::kFree).Word());
  cell.next_free = state.free_cell;
  state.free_cell = index + 1;
  state.live_objects.fetch_sub(1, std::memory_order_relaxed);
}

// Everything that the lock guards is derived from the cells; no other truth is consulted.
void ObjectTable::Rebuild() {
  AllocatorState& state = map_->header().allocator;
  uint32_t objects = 0;
  state.free_cell = 0;
  blocks_->BeginRebuild();
  for (uint32_t index = cells_used(); index-- > 0;) {
    ObjectCell& cell = map_->cell(index);
    if (LifeOf(cell).state == CellState::kFree) {
      cell.next_free = state.free_cell;
      state.free_cell = index + 1;
      continue;
    }
    ++objects;
    if (const uint64_t offset = cell.block_offset.load()) blocks_->MarkUsed(offset, cell.block_size.load());
  }
  blocks_->EndRebuild();
  state.live_objects.store(objects, std::memory_order_relaxed);
}

absl::StatusOr<uint32_t> ObjectTable::Claim(ObjectKind kind, uint64_t size, HostId me) {
  Locked locked(this, me);
  PYHOST_CRASH_POINT("object-claim-locked");
  PYHOST_ASSIGN_OR_RETURN(const uint32_t index, TakeCell());
  ObjectCell& cell = map_->cell(index);
  Life life;
  life.state = CellState::kClaimed;
  life.kind = kind;
  life.generation = LifeOf(cell).generation % 0xffffff + 1;
  life.host = me;
  cell.life.store(life.Word());
  map_->header().allocator.live_objects.fetch_add(1, std::memory_order_relaxed);
  PYHOST_CRASH_POINT("object-claimed-without-block");
  if (size == 0) return index;
  std::optional<uint64_t> offset = blocks_->Allocate(size);
  if (!offset && blocks_->damaged()) {
    Rebuild();
    offset = blocks_->Allocate(size);
  }
  if (!offset) {
    ReturnCell(index);
    return blocks_->Exhausted(size);
  }
  PYHOST_CRASH_POINT("object-block-taken-before-noted");
  cell.block_size.store(size);
  cell.block_offset.store(*offset);
  PYHOST_CRASH_POINT("object-block-noted");
  return index;
}

// ---- Create, look up ------------------------------------------------------------------------------------------------

absl::StatusOr<Handle> ObjectTable::Create(ObjectKind kind, uint64_t size, HostId me) {
  if (!me || me.slot() >= hosts_->capacity()) {
    return absl::FailedPreconditionError("this process has no identity in the session: it cannot create objects");
  }
  PYHOST_ASSIGN_OR_RETURN(const uint32_t index, Claim(kind, size, me));
  ObjectCell& cell = map_->cell(index);
  if (size != 0) {
    const absl::Status status = blocks_->Commit(cell.block_offset.load(), size);
    if (!status.ok()) {
      Finish(index, me);
      return status;
    }
  }
  memset(cell.state, 0, sizeof(cell.state));
  cell.references.store(cell.references.load() & ~uint64_t{0xffffffff});
  PYHOST_CRASH_POINT("object-claimed-before-held");
  map_->holders(index)[me.slot() / 64].fetch_or(BitOf(me));
  const Life live = LifeOf(cell).In(CellState::kLive);
  PYHOST_CRASH_POINT("object-held-before-live");
  cell.life.store(live.Word());
  return live.At(index);
}

absl::StatusOr<std::byte*> ObjectTable::State(Handle handle) const {
  ObjectCell* cell = Find(handle);
  if (cell == nullptr) return NoSuchObject(handle);
  return cell->state;
}

absl::StatusOr<std::span<std::byte>> ObjectTable::Block(Handle handle) const {
  const ObjectCell* cell = Find(handle);
  if (cell == nullptr) return NoSuchObject(handle);
  const uint64_t offset = cell->block_offset.load(std::memory_order_acquire);
  const uint64_t size = cell->block_size.load(std::memory_order_relaxed);
  if (offset == 0) return std::span<std::byte>();
  if (!blocks_->InRange(offset, size)) {
    return absl::DataLossError(absl::StrCat(handle.ToString(), ": its block (", size, " bytes at ", offset,
                                            ") is outside of the segment"));
  }
  return std::span<std::byte>(map_->base() + offset, size);
}

// ---- Holders ----------------------------------------------------------------------------------------------------------

bool ObjectTable::IsHeldByNoOther(Handle handle, HostId who) const {
  if (!IsHeld(handle, who)) return false;
  const ObjectCell& cell = map_->cell(handle.index());
  const std::atomic<uint64_t>* holders = map_->holders(handle.index());
  const uint32_t words = (hosts_->slots_used() + 63) / 64;
  for (uint32_t word = 0; word < words; ++word) {
    const uint64_t own = word == who.slot() / 64 ? BitOf(who) : 0;
    if (holders[word].load() != own) return false;
  }
  return TransitOf(cell.references.load()) == 0;
}

// Consistent although many words are read.  Whoever sets a bit (or counts a transit) while another keeps the
// object alive counts a change before that other lets go; hence, if no change was counted between the two
// readings, every holder there was at the first one would have been found.
bool ObjectTable::IsUnused(uint32_t index) const {
  const ObjectCell& cell = map_->cell(index);
  const std::atomic<uint64_t>* holders = map_->holders(index);
  for (;;) {
    const uint64_t before = cell.references.load();
    if (TransitOf(before) != 0) return false;
    const uint32_t words = (hosts_->slots_used() + 63) / 64;
    for (uint32_t word = 0; word < words; ++word) {
      if (holders[word].load() != 0) return false;
    }
    if (cell.references.load() == before) return true;
  }
}

absl::Status ObjectTable::Hold(Handle handle, HostId who) {
  ObjectCell* cell = Find(handle);
  if (cell == nullptr || !who || who.slot() >= hosts_->capacity()) return NoSuchObject(handle);
  map_->holders(handle.index())[who.slot() / 64].fetch_or(BitOf(who));
  PYHOST_CRASH_POINT("object-hold-before-counted");
  cell->references.fetch_add(kOneChange);
  // Not Live: its destroyer may have missed our bit; take it back.  Live: it will see it (see DestroyIfUnused).
  const Life life = LifeOf(*cell);
  if (life.state == CellState::kLive && life.Names(handle)) return absl::OkStatus();
  map_->holders(handle.index())[who.slot() / 64].fetch_and(~BitOf(who));
  return NoSuchObject(handle);
}

void ObjectTable::Drop(Handle handle, HostId who, HostId me) {
  if (Find(handle) == nullptr || !who || who.slot() >= hosts_->capacity()) return;
  map_->holders(handle.index())[who.slot() / 64].fetch_and(~BitOf(who));
  PYHOST_CRASH_POINT("object-dropped-before-freed");
  DestroyIfUnused(handle, me);
}

bool ObjectTable::IsHeld(Handle handle, HostId who) const {
  if (Find(handle) == nullptr || !who || who.slot() >= hosts_->capacity()) return false;
  return (map_->holders(handle.index())[who.slot() / 64].load() & BitOf(who)) != 0;
}

absl::Status ObjectTable::AddTransit(Handle handle) {
  ObjectCell* cell = Find(handle);
  if (cell == nullptr) return NoSuchObject(handle);
  cell->references.fetch_add(kOneChange + 1);
  return absl::OkStatus();
}

void ObjectTable::EndTransit(Handle handle, HostId me) {
  ObjectCell* cell = Find(handle);
  if (cell == nullptr) return;
  uint64_t references = cell->references.load();
  do {
    if (TransitOf(references) == 0) return;
  } while (!cell->references.compare_exchange_weak(references, references - 1));
  if (TransitOf(references) == 1) DestroyIfUnused(handle, me);
}

void ObjectTable::DuplicateHolds(HostId parent, HostId child) {
  for (uint32_t index = 0; index < cells_used(); ++index) {
    const Life life = LifeOf(map_->cell(index));
    const Handle handle = life.At(index);
    if (life.state != CellState::kLive || !IsHeld(handle, parent)) continue;
    if (!Hold(handle, child).ok()) continue;
    PYHOST_CRASH_POINT("object-duplicated-hold");
    // The parent's last instance may have gone meanwhile, on another thread.
    if (!IsHeld(handle, parent)) Drop(handle, child, parent);
  }
}

// ---- The end of an object ------------------------------------------------------------------------------------------------

// The second look is for Hold() on an object that the caller did not keep alive: whoever finds the object Live
// after it set its bit has set it before the move to Dying, and is seen here.
void ObjectTable::DestroyIfUnused(Handle handle, HostId me) {
  ObjectCell& cell = map_->cell(handle.index());
  const Life live = Life{CellState::kLive, handle.kind(), handle.generation(), HostId()};
  const Life dying = live.In(CellState::kDying, me);
  for (;;) {
    if (!IsUnused(handle.index()) || !Move(cell, live, dying)) return;
    PYHOST_CRASH_POINT("object-dying-before-destroyed");
    if (IsUnused(handle.index())) break;
    if (!Move(cell, dying, live)) return;
  }
  Destroy(handle, me);
}

void ObjectTable::Destroy(Handle handle, HostId me) {
  if (OpsOf(handle.kind()).destroy == nullptr) return Finish(handle.index(), me);
  if (pending_destroys != nullptr) {
    pending_destroys->push_back({this, handle});
    return;
  }
  std::vector<PendingDestroy> pending{{this, handle}};
  pending_destroys = &pending;
  while (!pending.empty()) {
    const PendingDestroy next = pending.back();
    pending.pop_back();
    OpsOf(next.handle.kind()).destroy(*next.table->segment_, me, next.handle);
    PYHOST_CRASH_POINT("object-destroyed-before-freed");
    const_cast<ObjectTable*>(next.table)->Finish(next.handle.index(), me);
  }
  pending_destroys = nullptr;
}

// Frees a Claimed or Dying cell of ours, and gives memory back if a lot is free now.
void ObjectTable::Finish(uint32_t index, HostId me) {
  std::optional<uint32_t> trimming;
  {
    Locked locked(this, me);
    ObjectCell& cell = map_->cell(index);
    PageRun run;
    if (const uint64_t offset = cell.block_offset.load()) run = blocks_->Free(offset, cell.block_size.load());
    PYHOST_CRASH_POINT("object-block-freed-before-noted");
    ReturnCell(index);
    if (run.length != 0 && !blocks_->damaged()) trimming = ClaimExcess(run, me);
  }
  if (!trimming) return;
  const ObjectCell& cell = map_->cell(*trimming);
  blocks_->Discard(cell.block_offset.load(), cell.block_size.load());
  Locked locked(this, me);
  blocks_->Free(cell.block_offset.load(), cell.block_size.load());
  ReturnCell(*trimming);
}

// Memory to be given back gets a Claimed cell of its own meanwhile, so that giving it back needs no lock and a death
// in it is repaired like any other.  (Allocator's lock held.)
std::optional<uint32_t> ObjectTable::ClaimExcess(PageRun run, HostId me) {
  const std::optional<BlockAllocator::Block> excess = blocks_->TakeExcess(run);
  if (!excess) return std::nullopt;
  const absl::StatusOr<uint32_t> index = TakeCell();
  if (!index.ok()) {
    blocks_->Free(excess->offset, excess->size);
    return std::nullopt;
  }
  ObjectCell& cell = map_->cell(*index);
  Life life = LifeOf(cell);
  life.generation = life.generation % 0xffffff + 1;
  life.kind = ObjectKind::kMemory;
  cell.life.store(life.In(CellState::kClaimed, me).Word());
  map_->header().allocator.live_objects.fetch_add(1, std::memory_order_relaxed);
  cell.block_size.store(excess->size);
  cell.block_offset.store(excess->offset);
  return *index;
}

// ---- Recovery ---------------------------------------------------------------------------------------------------------------

// In three passes, each of which may be repeated by another recoverer: locks and half-done objects, what the
// kinds know, and only then the bits, so that nothing is freed that a repair still needs.
void ObjectTable::Recover(HostId dead, HostId me) {
  if (map_->header().allocator.lock.TakeOver(dead, me)) {
    Rebuild();
    map_->header().allocator.lock.Unlock(me);
  }
  for (uint32_t index = 0; index < cells_used(); ++index) RecoverCell(index, dead, me);
  for (uint32_t index = 0; index < cells_used(); ++index) {
    const Life life = LifeOf(map_->cell(index));
    if (life.state == CellState::kLive) RecoverKind(life.At(index), dead, me);
  }
  PYHOST_CRASH_POINT("recovery-before-holds-cleared");
  for (uint32_t index = 0; index < cells_used(); ++index) ClearHold(index, dead, me);
}

void ObjectTable::RecoverCell(uint32_t index, HostId dead, HostId me) {
  ObjectCell& cell = map_->cell(index);
  const Life life = LifeOf(cell);
  if (life.host != dead) return;
  if (life.state == CellState::kClaimed && Move(cell, life, life.In(CellState::kClaimed, me))) {
    // Never was alive: nothing knows it but its maker.
    map_->holders(index)[dead.slot() / 64].fetch_and(~BitOf(dead));
    Finish(index, me);
  }
  if (life.state == CellState::kDying && Move(cell, life, life.In(CellState::kLive))) {
    DestroyIfUnused(life.At(index), me);
  }
}

void ObjectTable::RecoverKind(Handle handle, HostId dead, HostId me) {
  const ObjectKindOps& ops = OpsOf(handle.kind());
  if (ops.recover == nullptr) return;
  if (IsHeld(handle, dead)) {
    ops.recover(*segment_, me, handle, dead);
  } else if (ops.recover_unheld) {
    VisitHeld(handle, me, [&] { ops.recover(*segment_, me, handle, dead); });
  }
}

// Holds the object during a visit, so that it does not go meanwhile; no visit if it has gone.
template <typename Visit>
void ObjectTable::VisitHeld(Handle handle, HostId me, Visit visit) {
  const bool held_before = IsHeld(handle, me);
  if (!held_before && !Hold(handle, me).ok()) return;
  visit();
  if (!held_before) Drop(handle, me, me);
}

void ObjectTable::ClearHold(uint32_t index, HostId dead, HostId me) {
  ObjectCell& cell = map_->cell(index);
  std::atomic<uint64_t>& holders = map_->holders(index)[dead.slot() / 64];
  const Life life = LifeOf(cell);
  if ((holders.load() & BitOf(dead)) != 0) {
    cell.references.fetch_add(kOneChange);  // it may have set a bit for another without counting it
    holders.fetch_and(~BitOf(dead));
  }
  // Also what it dropped last without coming to free it.
  if (life.state == CellState::kLive) DestroyIfUnused(life.At(index), me);
}

// ---- Transits -----------------------------------------------------------------------------------------------------------------

// Optimistic: a count is corrected only if nobody touched it from before the visits until after them.  Queues
// count a transit under the same lock under which they publish or take the frame, so an untouched count means that
// no frame with that handle moved, and that the visits saw all of them.  What moves is counted again next round.
absl::Status ObjectTable::RecountTransits(HostId me) {
  constexpr int kRounds = 3;
  for (int round = 0; round < kRounds; ++round) {
    PYHOST_ASSIGN_OR_RETURN(const bool settled, RecountOnce(me));
    if (settled) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ObjectTable::RecountOnce(HostId me) {
  struct Count {
    uint64_t references = 0;  // as found first
    uint32_t seen = 0;
  };
  absl::flat_hash_map<uint64_t, Count> counts;
  for (uint32_t index = 0; index < cells_used(); ++index) {
    const ObjectCell& cell = map_->cell(index);
    const Life life = LifeOf(cell);
    if (life.state != CellState::kLive) continue;
    if (!IsKnown(life.kind)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "recount of transits: ", life.At(index).ToString(), " is of a kind that this process did not register"));
    }
    const uint64_t references = cell.references.load();
    if (TransitOf(references) != 0) counts[life.At(index).value()] = {references, 0};
  }
  if (counts.empty()) return true;
  VisitTransits(me, [&](Handle carried) {
    if (const auto found = counts.find(carried.value()); found != counts.end()) ++found->second.seen;
  });
  bool settled = true;
  for (const auto& [value, count] : counts) {
    const Handle handle = Handle::FromValue(value);
    if (count.seen == TransitOf(count.references)) continue;
    uint64_t expected = count.references;
    const uint64_t corrected = (expected & ~uint64_t{0xffffffff}) | count.seen;
    if (!map_->cell(handle.index()).references.compare_exchange_strong(expected, corrected)) {
      settled = false;
    } else if (count.seen == 0) {
      DestroyIfUnused(handle, me);
    }
  }
  return settled;
}

void ObjectTable::VisitTransits(HostId me, const std::function<void(Handle)>& visit) {
  for (uint32_t index = 0; index < cells_used(); ++index) {
    const Life life = LifeOf(map_->cell(index));
    const auto visit_transits = OpsOf(life.kind).visit_transits;
    if (visit_transits == nullptr || life.state != CellState::kLive) continue;
    const Handle handle = life.At(index);
    VisitHeld(handle, me, [&] { visit_transits(*segment_, me, handle, visit); });
  }
}

void ObjectTable::ForEach(const std::function<void(Handle, const ObjectCell&)>& visit) const {
  for (uint32_t index = 0; index < cells_used(); ++index) {
    const ObjectCell& cell = map_->cell(index);
    const Life life = LifeOf(cell);
    if (life.state == CellState::kLive) visit(life.At(index), cell);
  }
}

}  // namespace pyhost
