package gate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written "64KiB", "1MiB", "1.5GiB", "10MB" or as a
// plain number.
type Size int64

// The units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// sizeUnits is in the order in which String tries them.
var sizeUnits = []struct {
	name  string
	bytes Size
}{
	{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
	{"GB", 1_000_000_000}, {"MB", 1_000_000}, {"KB", 1000},
	{"B", 1},
}

var errBadSize = errors.New(`not a size: write a number and a unit, such as "64KiB" or "256MiB"`)

// ParseSize reads what String gives, and plain numbers. Units may be written
// in any case; half a unit is allowed where it makes whole bytes.
func ParseSize(s string) (Size, error) {
	number, unit := strings.TrimSpace(s), Size(1)
	for _, u := range sizeUnits {
		if n := len(number) - len(u.name); n > 0 && strings.EqualFold(number[n:], u.name) {
			number, unit = strings.TrimSpace(number[:n]), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(unit) {
			return 0, fmt.Errorf("a size must be between 0 and %d bytes", int64(math.MaxInt64))
		}
		return Size(n) * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	bytes := f * float64(unit)
	if err != nil || strings.ContainsAny(number, "eExXpP_") || !(bytes >= 0 && bytes < math.MaxInt64) || bytes != math.Trunc(bytes) {
		return 0, errBadSize
	}
	return Size(bytes), nil
}

// String writes the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}
