package discover_test

import (
	"testing"

	"ssegate/discover"
	"ssegate/internal/gatetest/discovertest"
)

func TestStatic(t *testing.T) {
	discovertest.Run(t, func(_ *testing.T, services map[string][]string) discovertest.World {
		return discovertest.World{Source: discover.NewStatic(services)}
	})
}
