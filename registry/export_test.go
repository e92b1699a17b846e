package registry

// Entries is how many entries m holds, ended or not.
func (m *Memory) Entries() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.nodes.m) + len(m.records.m) + len(m.interest.m) + len(m.bids.m) + len(m.prints.m)
}
