// The few objects that plain data needs although pickle describes them as calls: sets and bytes of old protocols,
// dictionaries of `collections`, complex numbers, numpy's numbers and arrays, shared arrays.

#ifndef PYHOST_RUNTIME_VALUES_KNOWN_CALLS_H_
#define PYHOST_RUNTIME_VALUES_KNOWN_CALLS_H_

#include <cstddef>
#include <cstdint>

#include "pyhost/value_reader.h"
#include "runtime/values/pickle_graph.h"

namespace pyhost {

// What calling `callable` with `arguments` gives; an unknown one gives a kObject.
NodeIndex ReduceKnown(PickleGraph& graph, const DecodeContext& context, NodeIndex callable, NodeIndex arguments);

// Gives `object` its state, where that is understood.
void BuildKnown(PickleGraph& graph, NodeIndex object, NodeIndex state);

// How much a pickle of `size` bytes may unfold to.
uint64_t UnfoldedLimit(const DecodeContext& context, size_t size);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_KNOWN_CALLS_H_
