#include "runtime/values/known_calls.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace pyhost {
namespace {

// More than any pickle without repetitions unfolds to.
constexpr uint64_t kUnfoldedTimes = 128;
constexpr size_t kMaxDimensions = 64;

// The arguments of a call, as they are asked for.  What is asked for and is not there is nullopt.
class Arguments {
 public:
  Arguments(const PickleGraph& graph, NodeIndex tuple)
      : graph_(graph), tuple_(graph[tuple].kind == NodeKind::kTuple ? tuple : kNoNode) {}

  size_t size() const { return tuple_ == kNoNode ? 0 : graph_[tuple_].size; }
  NodeIndex at(size_t index) const { return index < size() ? graph_.ItemAt(tuple_, index) : kNoNode; }
  bool Is(size_t index, NodeKind kind) const { return index < size() && graph_[at(index)].kind == kind; }
  std::optional<std::string_view> Text(size_t index, NodeKind kind) const {
    if (!Is(index, kind)) return std::nullopt;
    return graph_.text(at(index));
  }
  std::optional<int64_t> Int(size_t index) const {
    if (!Is(index, NodeKind::kInt)) return std::nullopt;
    return graph_[at(index)].integer;
  }
  std::optional<double> Float(size_t index) const {
    if (!Is(index, NodeKind::kFloat)) return std::nullopt;
    return graph_[at(index)].real;
  }
  // Of a type that arrays here can have.
  std::optional<DType> Type(size_t index) const {
    if (!Is(index, NodeKind::kDType) || graph_[at(index)].size == 0) return std::nullopt;
    return static_cast<DType>(graph_[at(index)].first);
  }
  std::optional<std::vector<int64_t>> Shape(size_t index) const {
    if (!Is(index, NodeKind::kTuple)) return std::nullopt;
    const Arguments parts(graph_, at(index));
    if (parts.size() > kMaxDimensions) return std::nullopt;
    std::vector<int64_t> shape;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::optional<int64_t> part = parts.Int(i);
      if (!part) return std::nullopt;
      shape.push_back(*part);
    }
    return shape;
  }

 private:
  const PickleGraph& graph_;
  const NodeIndex tuple_;
};

// A call being understood.
struct Call {
  PickleGraph& graph;
  const DecodeContext& context;
  Arguments arguments;
};

// ---- Plain types --------------------------------------------------------------------------------------------------

// The items of a list as another kind of container.
NodeIndex Recast(Call& call, NodeKind kind) {
  if (call.arguments.size() == 0) return call.graph.Add(kind);
  if (call.arguments.size() != 1 || !call.arguments.Is(0, NodeKind::kList)) return kNoNode;
  const NodeIndex node = call.graph.Add(kind);
  call.graph.AppendCopy(node, call.arguments.at(0));
  return node;
}
NodeIndex Set(Call& call) { return Recast(call, NodeKind::kSet); }
NodeIndex FrozenSet(Call& call) { return Recast(call, NodeKind::kFrozenSet); }

// Bytes that protocol 2 writes as a text of characters up to 255; nullopt when it is none.
std::optional<std::string> FromLatin1(std::string_view utf8) {
  std::string bytes;
  for (size_t i = 0; i < utf8.size(); ++i) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    if (lead < 0x80) {
      bytes.push_back(utf8[i]);
      continue;
    }
    if ((lead & 0xfc) != 0xc0 || i + 1 == utf8.size()) return std::nullopt;
    const auto trail = static_cast<unsigned char>(utf8[++i]);
    if ((trail & 0xc0) != 0x80) return std::nullopt;
    bytes.push_back(static_cast<char>(lead << 6 | (trail & 0x3f)));
  }
  return bytes;
}

NodeIndex BytesOfText(Call& call, NodeKind kind) {
  const std::optional<std::string_view> text = call.arguments.Text(0, NodeKind::kString);
  const std::optional<std::string_view> encoding = call.arguments.Text(1, NodeKind::kString);
  if (!text || !encoding || (*encoding != "latin1" && *encoding != "latin-1")) return kNoNode;
  std::optional<std::string> bytes = FromLatin1(*text);
  return bytes ? call.graph.AddOwned(kind, *std::move(bytes)) : kNoNode;
}
NodeIndex Encode(Call& call) { return BytesOfText(call, NodeKind::kBytes); }
NodeIndex Bytes(Call& call) { return call.arguments.size() == 0 ? call.graph.AddText(NodeKind::kBytes, "") : kNoNode; }
NodeIndex ByteArray(Call& call) {
  if (call.arguments.size() == 0) return call.graph.AddText(NodeKind::kByteArray, "");
  if (call.arguments.size() == 2) return BytesOfText(call, NodeKind::kByteArray);
  const std::optional<std::string_view> bytes = call.arguments.Text(0, NodeKind::kBytes);
  return bytes ? call.graph.AddText(NodeKind::kByteArray, *bytes) : kNoNode;
}

NodeIndex AddComplex(PickleGraph& graph, double real, double imaginary) {
  const NodeIndex node = graph.Add(NodeKind::kComplex);
  graph[node].real = real;
  graph[node].size = std::bit_cast<uint64_t>(imaginary);
  return node;
}
NodeIndex Complex(Call& call) {
  const std::optional<double> real = call.arguments.Float(0), imaginary = call.arguments.Float(1);
  return real && imaginary ? AddComplex(call.graph, *real, *imaginary) : kNoNode;
}

NodeIndex EmptyDict(Call& call) { return call.graph.Add(NodeKind::kDict); }
NodeIndex Counter(Call& call) { return call.arguments.Is(0, NodeKind::kDict) ? call.arguments.at(0) : kNoNode; }
NodeIndex Deque(Call& call) { return call.graph.Add(NodeKind::kList); }

// ---- numpy --------------------------------------------------------------------------------------------------------

struct NumpyType {
  std::string_view code;
  DType dtype;
};
constexpr NumpyType kNumpyTypes[] = {
    {"b1", DType::kBool},   {"i1", DType::kInt8},    {"i2", DType::kInt16},   {"i4", DType::kInt32},
    {"i8", DType::kInt64},  {"u1", DType::kUint8},   {"u2", DType::kUint16},  {"u4", DType::kUint32},
    {"u8", DType::kUint64}, {"f4", DType::kFloat32}, {"f8", DType::kFloat64}, {"c8", DType::kComplex64},
    {"c16", DType::kComplex128},
};

NodeIndex NumpyDType(Call& call) {
  const std::optional<std::string_view> code = call.arguments.Text(0, NodeKind::kString);
  if (!code) return kNoNode;
  const auto* known = std::find_if(std::begin(kNumpyTypes), std::end(kNumpyTypes),
                                   [&](const NumpyType& type) { return type.code == *code; });
  const NodeIndex node = call.graph.Add(NodeKind::kDType);
  call.graph[node].second = call.arguments.at(0);
  if (known == std::end(kNumpyTypes)) return node;
  call.graph[node].first = static_cast<uint32_t>(known->dtype);
  call.graph[node].size = DTypeSize(known->dtype);
  return node;
}

template <typename T>
T Load(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

NodeIndex AddUnsigned(PickleGraph& graph, std::string_view bytes) {
  const auto value = Load<uint64_t>(bytes);
  if (value <= static_cast<uint64_t>(INT64_MAX)) return graph.AddInt(static_cast<int64_t>(value));
  return graph.AddOwned(NodeKind::kBigInt, std::string(bytes) + '\0');
}

NodeIndex NumpyNumber(Call& call) {
  const std::optional<DType> dtype = call.arguments.Type(0);
  const std::optional<std::string_view> bytes = call.arguments.Text(1, NodeKind::kBytes);
  if (!dtype || !bytes || bytes->size() != DTypeSize(*dtype)) return kNoNode;
  PickleGraph& graph = call.graph;
  switch (*dtype) {
    case DType::kBool: return PickleGraph::Bool((*bytes)[0] != 0);
    case DType::kInt8: return graph.AddInt(Load<int8_t>(*bytes));
    case DType::kInt16: return graph.AddInt(Load<int16_t>(*bytes));
    case DType::kInt32: return graph.AddInt(Load<int32_t>(*bytes));
    case DType::kInt64: return graph.AddInt(Load<int64_t>(*bytes));
    case DType::kUint8: return graph.AddInt(Load<uint8_t>(*bytes));
    case DType::kUint16: return graph.AddInt(Load<uint16_t>(*bytes));
    case DType::kUint32: return graph.AddInt(Load<uint32_t>(*bytes));
    case DType::kUint64: return AddUnsigned(graph, *bytes);
    case DType::kFloat32: return graph.AddFloat(static_cast<double>(Load<float>(*bytes)));
    case DType::kFloat64: return graph.AddFloat(Load<double>(*bytes));
    case DType::kComplex64: return AddComplex(graph, Load<float>(*bytes), Load<float>(bytes->substr(4)));
    case DType::kComplex128: return AddComplex(graph, Load<double>(*bytes), Load<double>(bytes->substr(8)));
  }
  return kNoNode;
}

// Elements that lie in the pickle: copied, for alignment, and because arrays outlive it.
NodeIndex ArrayOfBytes(PickleGraph& graph, DType dtype, std::vector<int64_t> shape, std::string_view bytes) {
  uint64_t size = DTypeSize(dtype);
  for (int64_t part : shape) {
    if (part < 0 || __builtin_mul_overflow(size, static_cast<uint64_t>(part), &size)) return kNoNode;
  }
  if (size != bytes.size()) return kNoNode;
  return graph.AddArray(AnyArray::CopyOf(dtype, std::move(shape), bytes.data()));
}

bool IsCOrder(const std::vector<int64_t>& shape, std::optional<std::string_view> order) {
  return order == "C" || std::count_if(shape.begin(), shape.end(), [](int64_t part) { return part != 1; }) <= 1;
}

// _frombuffer(buffer, dtype, shape, order)
NodeIndex NumpyFromBuffer(Call& call) {
  const std::optional<DType> dtype = call.arguments.Type(1);
  std::optional<std::vector<int64_t>> shape = call.arguments.Shape(2);
  if (!dtype || !shape || !IsCOrder(*shape, call.arguments.Text(3, NodeKind::kString))) return kNoNode;
  if (call.arguments.Is(0, NodeKind::kBuffer)) {
    const SharedHandle& block = call.context.buffers[call.graph[call.arguments.at(0)].first];
    absl::StatusOr<AnyArray> array = AnyArray::Over(block, 0, *dtype, *std::move(shape));
    return array.ok() ? call.graph.AddArray(*std::move(array)) : kNoNode;
  }
  std::optional<std::string_view> bytes = call.arguments.Text(0, NodeKind::kBytes);
  if (!bytes) bytes = call.arguments.Text(0, NodeKind::kByteArray);
  return bytes ? ArrayOfBytes(call.graph, *dtype, *std::move(shape), *bytes) : kNoNode;
}

// ---- Shared arrays ------------------------------------------------------------------------------------------------

// _pyhost._rebuild(type, session, handle)
NodeIndex Block(Call& call) {
  // A handle has 64 bits without a sign: those with the highest bit set come as a big integer, and belong to no memory.
  const std::optional<int64_t> handle = call.arguments.Int(2);
  if (!handle) return kNoNode;
  const auto found =
      std::find_if(call.context.handles.begin(), call.context.handles.end(),
                   [&](const SharedHandle& block) { return block->handle() == static_cast<uint64_t>(*handle); });
  if (found == call.context.handles.end()) return kNoNode;
  const NodeIndex node = call.graph.Add(NodeKind::kBlock);
  call.graph[node].first = static_cast<uint32_t>(found - call.context.handles.begin());
  return node;
}

std::optional<DType> DTypeOfName(std::string_view name) {
  for (const NumpyType& type : kNumpyTypes) {
    if (DTypeName(type.dtype) == name) return type.dtype;
  }
  return std::nullopt;
}

// pyhost.arrays.attach(memory, dtype, shape, offset, readonly)
NodeIndex Attach(Call& call) {
  const std::optional<std::string_view> name = call.arguments.Text(1, NodeKind::kString);
  const std::optional<DType> dtype = name ? DTypeOfName(*name) : std::nullopt;
  std::optional<std::vector<int64_t>> shape = call.arguments.Shape(2);
  const std::optional<int64_t> offset = call.arguments.Int(3);
  if (!call.arguments.Is(0, NodeKind::kBlock) || !dtype || !shape || !offset || *offset < 0 ||
      !call.arguments.Is(4, NodeKind::kBool)) {
    return kNoNode;
  }
  const SharedHandle& block = call.context.handles[call.graph[call.arguments.at(0)].first];
  absl::StatusOr<AnyArray> array = AnyArray::Over(block, static_cast<size_t>(*offset), *dtype, *std::move(shape),
                                                  call.graph[call.arguments.at(4)].integer != 0);
  return array.ok() ? call.graph.AddArray(*std::move(array)) : kNoNode;
}

// pyhost.arrays.copied(bytearray, dtype, shape): what we write ourselves for an array that is not shared.
NodeIndex Copied(Call& call) {
  const std::optional<std::string_view> bytes = call.arguments.Text(0, NodeKind::kByteArray);
  const std::optional<std::string_view> name = call.arguments.Text(1, NodeKind::kString);
  const std::optional<DType> dtype = name ? DTypeOfName(*name) : std::nullopt;
  std::optional<std::vector<int64_t>> shape = call.arguments.Shape(2);
  return bytes && dtype && shape ? ArrayOfBytes(call.graph, *dtype, *std::move(shape), *bytes) : kNoNode;
}

// ---- The table ----------------------------------------------------------------------------------------------------

struct Known {
  std::string_view module;
  std::string_view name;
  NodeIndex (*call)(Call&);  // kNoNode: not understood
};
constexpr Known kKnown[] = {
    {"builtins", "set", Set},
    {"builtins", "frozenset", FrozenSet},
    {"builtins", "bytearray", ByteArray},
    {"builtins", "bytes", Bytes},
    {"builtins", "complex", Complex},
    {"_codecs", "encode", Encode},
    {"collections", "OrderedDict", EmptyDict},
    {"collections", "defaultdict", EmptyDict},
    {"collections", "Counter", Counter},
    {"collections", "deque", Deque},
    {"numpy", "dtype", NumpyDType},
    {"numpy.core.multiarray", "scalar", NumpyNumber},
    {"numpy.core.numeric", "_frombuffer", NumpyFromBuffer},
    {"_pyhost", "_rebuild", Block},
    {"pyhost.arrays", "attach", Attach},
    {"pyhost.arrays", "copied", Copied},
};

struct GlobalName {
  std::string_view module;
  std::string_view name;
};

// The name of a global, as the table has it: Python 2's `__builtin__` (protocol 2) and numpy 2's `numpy._core` have others.
GlobalName NameOf(const PickleGraph& graph, NodeIndex global) {
  GlobalName name{graph.text(graph[global].first), graph.text(graph[global].second)};
  if (name.module == "__builtin__") name.module = "builtins";
  if (name.module == "numpy._core.multiarray") name.module = "numpy.core.multiarray";
  if (name.module == "numpy._core.numeric") name.module = "numpy.core.numeric";
  return name;
}

bool IsEmptyArray(const PickleGraph& graph, NodeIndex object) {
  if (graph[object].kind != NodeKind::kObject || graph[graph[object].first].kind != NodeKind::kGlobal) return false;
  const GlobalName name = NameOf(graph, graph[object].first);
  return name.module == "numpy.core.multiarray" && name.name == "_reconstruct";
}

// (version, shape, dtype, is Fortran order, elements)
NodeIndex ArrayOfState(PickleGraph& graph, NodeIndex state) {
  const Arguments parts(graph, state);
  std::optional<std::vector<int64_t>> shape = parts.Shape(1);
  const std::optional<DType> dtype = parts.Type(2);
  const std::optional<std::string_view> bytes = parts.Text(4, NodeKind::kBytes);
  if (!shape || !dtype || !bytes || !parts.Is(3, NodeKind::kBool)) return kNoNode;
  const bool fortran = graph[parts.at(3)].integer != 0;
  if (!IsCOrder(*shape, fortran ? "F" : "C")) return kNoNode;
  return ArrayOfBytes(graph, *dtype, *std::move(shape), *bytes);
}

}  // namespace

NodeIndex ReduceKnown(PickleGraph& graph, const DecodeContext& context, NodeIndex callable, NodeIndex arguments) {
  if (graph[callable].kind == NodeKind::kGlobal) {
    const GlobalName name = NameOf(graph, callable);
    Call call{graph, context, Arguments(graph, arguments)};
    for (const Known& known : kKnown) {
      if (known.name != name.name || known.module != name.module) continue;
      if (const NodeIndex node = known.call(call); node != kNoNode) return node;
      break;
    }
  }
  const NodeIndex node = graph.Add(NodeKind::kObject);
  graph[node].first = callable;
  graph[node].second = arguments;
  return node;
}

void BuildKnown(PickleGraph& graph, NodeIndex object, NodeIndex state) {
  if (graph[object].kind == NodeKind::kDType) {
    // (version, byte order, ...): big-endian ones are not understood.
    if (Arguments(graph, state).Text(1, NodeKind::kString) == ">") graph[object].size = 0;
  } else if (IsEmptyArray(graph, object)) {
    if (const NodeIndex array = ArrayOfState(graph, state); array != kNoNode) graph[object] = Node(graph[array]);
  }
}

uint64_t UnfoldedLimit(const DecodeContext& context, size_t size) {
  return std::max(context.max_unfolded_bytes, kUnfoldedTimes * size);
}

}  // namespace pyhost
