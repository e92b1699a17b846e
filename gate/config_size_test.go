package gate

import (
	"math"
	"testing"
)

func TestSize(t *testing.T) {
	f := func(text string, want Size, printed string) {
		t.Helper()
		got, err := ParseSize(text)
		if err != nil || got != want || got.String() != printed {
			t.Errorf("%q is %d, %v, printed %s; want %d, %s", text, got, err, got, want, printed)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s reads as %d, %v", got, again, err)
		}
	}
	f("0", 0, "0")
	f("0MiB", 0, "0")
	f("1", 1, "1")
	f("4096", 4096, "4KiB")
	f("64KiB", 64*KiB, "64KiB")
	f(" 64 kib ", 64*KiB, "64KiB")
	f("1.5MiB", 1536*KiB, "1536KiB")
	f("10MB", 10_000_000, "10000000")
	f("3GB", 3_000_000_000, "3000000000")
	f("7KB", 7000, "7000")
	f("7b", 7, "7")
	f("2GiB", 2*GiB, "2GiB")
	f("9223372036854775807", math.MaxInt64, "9223372036854775807")
	for _, bad := range []string{"", "MiB", "B", "-1", "-1MiB", "x", "1x", "1 2", "0.3", "0.3KiB", "1e3", "Inf", "NaN", "0x10", "1_000", "9223372036854775808", "9000000000GiB", "1TiB", "1.5"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q is taken for %d", bad, got)
		}
	}
	for v := range 5000 {
		f(Size(v).String(), Size(v), Size(v).String())
	}
}
