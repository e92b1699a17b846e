// Package bustest proves that a bus.Bus keeps the contract of package bus: one
// suite, and one set of benchmarks, for every driver.
package bustest
