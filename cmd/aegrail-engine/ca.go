package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/certs"
)

func caCommand(w *world) *cobra.Command {
	return group(&cobra.Command{Use: "ca", Short: "Make and look at a certificate authority"},
		caInitCommand(w), caShowCommand(w), caBundleCommand(w))
}

func caInitCommand(w *world) *cobra.Command {
	var dir string
	var permit []string
	c := &cobra.Command{
		Use:   "init --dir DIR [--permit HOST…]",
		Short: "Make a certificate authority in a directory",
		Long: "Make a certificate authority: DIR/ca.crt is for clients to trust, DIR/tls.crt and DIR/tls.key\n" +
			"are for `serve --ca-dir DIR`. With --permit what signs is an intermediate that can only ever\n" +
			"be valid for those hosts, and the root's key is thrown away.",
		Example: "  aegrail-engine ca init --dir ca\n  aegrail-engine ca init --dir ca --permit '*.openai.com' --permit pypi.pkg.example",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return usagef(c, "--dir is missing")
			}
			if err := certs.Init(dir, permit, time.Now()); err != nil {
				if errors.Is(err, certs.ErrHost) {
					return badInput(err)
				}
				return err
			}
			fmt.Fprintf(w.stdout, "%s/%s  for clients to trust\n%s/%s  signs; with %s for serve --ca-dir %s\n%s/%s  keep it where agents cannot read it\n",
				dir, certs.RootFile, dir, certs.CertFile, certs.KeyFile, dir, dir, certs.KeyFile)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the directory, made if it does not exist")
	c.Flags().StringSliceVar(&permit, "permit", nil, "a `HOST`, *.suffix or CIDR that the authority may sign for; default: all")
	return c
}

func caShowCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Say what the certificates in a file are",
		Args:  takes(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readFile("certificate", args[0])
			if err != nil {
				return badInput(err)
			}
			shown := 0
			for rest := data; ; shown++ {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				if block.Type != "CERTIFICATE" {
					return badInput(fmt.Errorf("%s holds a %s: show reads certificates, and keys are not for showing", args[0], strings.ToLower(block.Type)))
				}
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					return badInput(fmt.Errorf("%s: %w", args[0], err))
				}
				if shown > 0 {
					fmt.Fprintln(w.stdout)
				}
				showCertificate(w.stdout, cert, time.Now())
			}
			if shown == 0 {
				return badInput(fmt.Errorf("%s holds no PEM certificate", args[0]))
			}
			return nil
		},
	}
}

func showCertificate(w io.Writer, c *x509.Certificate, now time.Time) {
	role := "leaf"
	if c.IsCA {
		role = "intermediate"
		if c.CheckSignatureFrom(c) == nil {
			role = "root"
		}
	}
	fmt.Fprintf(w, "%s: %s\n", role, c.Subject)
	fmt.Fprintf(w, "  issuer       %s\n", c.Issuer)
	fmt.Fprintf(w, "  key          %s\n", keyName(c.PublicKey))
	fmt.Fprintf(w, "  valid        %s to %s%s\n", c.NotBefore.UTC().Format(time.DateTime), c.NotAfter.UTC().Format(time.DateTime), life(c, now))
	if c.IsCA {
		fmt.Fprintf(w, "  permitted    %s\n", orAll(permitted(c)))
	}
	if len(c.DNSNames) > 0 {
		fmt.Fprintf(w, "  names        %s\n", strings.Join(c.DNSNames, " "))
	}
	fmt.Fprintf(w, "  sha256       %x\n", sha256.Sum256(c.Raw))
}

func life(c *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return " (not yet)"
	case now.After(c.NotAfter):
		return " (EXPIRED)"
	case c.NotAfter.Sub(now) < 48*time.Hour:
		return fmt.Sprintf(" (%d h left)", int(c.NotAfter.Sub(now).Hours()))
	default:
		return fmt.Sprintf(" (%d days left)", int(c.NotAfter.Sub(now).Hours()/24))
	}
}

func permitted(c *x509.Certificate) []string {
	names := append([]string(nil), c.PermittedDNSDomains...)
	for _, n := range c.PermittedIPRanges {
		names = append(names, n.String())
	}
	return names
}

func orAll(names []string) string {
	if len(names) == 0 {
		return "every name (unconstrained)"
	}
	return strings.Join(names, " ")
}

func keyName(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return fmt.Sprintf("%T", key)
	}
}

// storePassword is Java's own default for trust stores. It protects nothing:
// what is in one is public.
const storePassword = "changeit"

func caBundleCommand(w *world) *cobra.Command {
	var ca string
	var pkcs12 bool
	c := &cobra.Command{
		Use:   "bundle --ca FILE [--pkcs12]",
		Short: "Print the system's roots and the authority's as one trust bundle",
		Long: "Print the system's roots and those in FILE as one trust bundle: PEM, or with --pkcs12 a Java\n" +
			"trust store with the password " + storePassword + ".",
		Example: "  aegrail-engine ca bundle --ca ca/ca.crt > bundle.pem\n  aegrail-engine ca bundle --ca ca/ca.crt --pkcs12 > trust.p12",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if ca == "" {
				return usagef(c, "--ca is missing: the authority's ca.crt")
			}
			if pkcs12 && terminal(w.stdout) {
				return usagef(c, "--pkcs12 is binary: send it to a file with >")
			}
			data, err := readFile("certificate authority", ca)
			if err != nil {
				return badInput(err)
			}
			_, system, err := certs.SystemBundle(nil)
			if err != nil {
				fmt.Fprintf(w.stderr, "aegrail-engine: the bundle holds %s alone: %v\n", ca, err)
			}
			trust, err := certs.Bundle(system, data)
			if err != nil {
				return badInput(fmt.Errorf("%s: %w", ca, err))
			}
			out := trust.PEM()
			if pkcs12 {
				if out, err = trust.PKCS12(storePassword); err != nil {
					return err
				}
			}
			if _, err := w.stdout.Write(out); err != nil {
				return errors.Join(errors.New("writing the bundle"), err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&ca, "ca", "", "the authority's certificate `FILE`")
	c.Flags().BoolVar(&pkcs12, "pkcs12", false, "a Java trust store instead of PEM")
	return c
}
