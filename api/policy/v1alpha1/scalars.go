package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	maxRate  = 1_000_000 // requests per unit
	maxBytes = 1 << 40   // 1 TiB
)

// Rate is so many requests per time, as in "30/min". The zero value is none.
type Rate struct {
	Count int
	Per   time.Duration
}

// ParseRate reads count/unit; units are s, min, h and day, spelled so or as
// sec, second, minute, hour, d.
func ParseRate(text string) (Rate, error) {
	count, unit, ok := strings.Cut(text, "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > maxRate || count[0] == '+' || count[0] == '0' {
		return Rate{}, fmt.Errorf("%q is no rate: write a count from 1 to %d, a slash and a unit, as in 30/min", text, maxRate)
	}
	switch unit {
	case "s", "sec", "second":
		return Rate{n, time.Second}, nil
	case "min", "minute":
		return Rate{n, time.Minute}, nil
	case "h", "hour":
		return Rate{n, time.Hour}, nil
	case "d", "day":
		return Rate{n, 24 * time.Hour}, nil
	}
	return Rate{}, fmt.Errorf("%q is no rate: the unit is s, min, h or day, as in 30/min", text)
}

// IsZero reports that there is no rate.
func (r Rate) IsZero() bool { return r.Count == 0 }

// String returns the form that ParseRate reads.
func (r Rate) String() string {
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "min", time.Hour: "h", 24 * time.Hour: "day"}[r.Per]
	if unit == "" {
		unit = r.Per.String()
	}
	return strconv.Itoa(r.Count) + "/" + unit
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Bytes is a number of bytes, as in "1Mi". Zero is none.
type Bytes int64

type unit struct {
	name string
	size int64
}

// units are those of Kubernetes quantities, the largest first so that String
// finds the shortest form.
func units() [7]unit {
	return [...]unit{{"Gi", 1 << 30}, {"G", 1e9}, {"Mi", 1 << 20}, {"M", 1e6}, {"Ki", 1 << 10}, {"k", 1e3}, {"", 1}}
}

// ParseBytes reads a whole number of bytes with an optional unit: Ki, Mi, Gi
// (powers of 1024) or k, M, G (powers of 1000).
func ParseBytes(text string) (Bytes, error) {
	digits := strings.TrimRight(text, "GMKik")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || digits[0] == '+' || digits[0] == '0' {
		return 0, fmt.Errorf("%q is no size: write a whole number of bytes, with Ki, Mi or Gi if you like, as in 1Mi", text)
	}
	for _, u := range units() {
		if u.name != text[len(digits):] {
			continue
		}
		if n > maxBytes/u.size {
			return 0, fmt.Errorf("%q is too large: the limit is 1024Gi", text)
		}
		return Bytes(n * u.size), nil
	}
	return 0, fmt.Errorf("%q is no size: the unit is Ki, Mi, Gi, k, M or G, as in 1Mi", text)
}

// String returns the shortest form that ParseBytes reads.
func (b Bytes) String() string {
	for _, u := range units() {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return "0"
}

// MarshalText is String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
