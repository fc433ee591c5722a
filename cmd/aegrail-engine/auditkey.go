package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// keySuffix is behind the log's name in the file of a key that nobody named.
const keySuffix = ".key"

// auditSigner returns the key that signs the log's checkpoints: that in file,
// which is made if it is not there, or one for this process alone where file
// is empty.
//
// A key beside the log protects what it has signed from who can change the log
// and not read the key. What they change while no engine runs is signed at the
// next start, and verify says so. Only an anchor elsewhere shows what somebody did
// who has both.
func auditSigner(file string, logger *slog.Logger) (*checkpoint.Signer, error) {
	if file == "" {
		private, err := newAuditKey()
		if err != nil {
			return nil, err
		}
		return checkpoint.NewSigner(private)
	}
	data, err := readFile("audit key", file)
	if errors.Is(err, fs.ErrNotExist) {
		return createAuditKey(file)
	}
	if err != nil {
		return nil, badInput(err)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
		logger.Warn("the audit key can be read by other users; its mode should be 0600", "file", file)
	}
	s, err := checkpoint.NewSigner(string(data))
	if err != nil {
		return nil, badInput(fmt.Errorf("--audit-key %s: %w", file, err))
	}
	return s, nil
}

func auditKeyCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Print the verifier key of the key that signs a log",
		Long: "Print the public half of the key in FILE, which serve and exec make beside the log: what\n" +
			"`audit verify --key` takes. The private half stays where it is.",
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readFile("audit key", args[0])
			if err != nil {
				return badInput(err)
			}
			s, err := checkpoint.NewSigner(string(data))
			if err != nil {
				return badInput(fmt.Errorf("%s: %w", args[0], err))
			}
			fmt.Fprintln(w.stdout, s.VerifierKey())
			return nil
		},
	}
}

// newAuditKey makes a key with a name that no other log has, since the name is
// what tells one log's checkpoints from another's.
func newAuditKey() (string, error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand aborts the process instead
	return checkpoint.Generate("aegrail-audit-" + hex.EncodeToString(id[:]))
}

// createAuditKey makes a key and its file, which nobody else may read. The file
// is whole or not there, however we die.
func createAuditKey(file string) (*checkpoint.Signer, error) {
	private, err := newAuditKey()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // CreateTemp makes it 0600
	if err != nil {
		return nil, badInput(fmt.Errorf("making the audit key %s: %w; name a file that can be made, or an existing key, with --audit-key", file, err))
	}
	_, err = f.WriteString(private)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), file) // unlike a rename it never replaces a key
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, fmt.Errorf("making the audit key %s: %w", file, err)
	}
	return checkpoint.NewSigner(private)
}
