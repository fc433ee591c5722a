package watch

import (
	"fmt"
	"io"
	"os"
)

// ReadFile reads the file called name, which has at most most bytes. Its errors
// say what it was read for.
func ReadFile(what, name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("reading the %s: %s is a directory, want a file", what, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("reading the %s: %s has more than %d bytes, the most that are read", what, name, most)
	}
	return data, nil
}
