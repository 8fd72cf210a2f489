# mitogen: what there is to type. All that is made is below target/.

CPU    := $(shell uname -m)
IMAGE  := target/agents/linux-$(CPU)
LIST   := target/static/images.rs
IMAGES := $(shell . .ci/make/cpus; printf 'target/agents/linux-%s ' $$cpus_required $$cpus_optional)
DIST   := target/dist/mitogen
CARGO  ?= cargo
# Everything that a build can depend on: a target older than one of these is made again.
SOURCE := $(shell find src .ci/make -type f) Cargo.toml Cargo.lock Makefile

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all agents test repeat soak model race lint check-portable bench versus demo size setup clean help

all: $(DIST)            # the command, one static file that carries the stock images
	@echo "$(DIST): $$(wc -c <$(DIST)) bytes, static"

agents: $(LIST)         # the stock images of all CPUs, plain and compressed
	@.ci/make/size brief

# By name, and not by pattern alone: make would take `x86_64.gz` for a CPU.
$(IMAGES): target/agents/linux-%: $(SOURCE)
	@.ci/make/setup build
	@echo "building $@ with $$(.ci/make/static which $*)"
	@.ci/make/static agent $* $@

$(IMAGES:=.gz): %.gz: %
	@if command -v zopfli >/dev/null; then zopfli -c $<; else gzip -9nc $<; fi >$@

# Which images there are, as Rust; the others are named with what keeps them from being made.
$(LIST): $(SOURCE) $(IMAGE).gz
	@.ci/make/agents $@

$(DIST): $(SOURCE) $(LIST)
	@echo "building $@"
	@MITOGEN_IMAGES=$(CURDIR)/$(LIST) .ci/make/static command $@

target/dist/demo: $(SOURCE)
	@echo "building $@"
	@.ci/make/static demo $@

# The program of tests/it/cross_cpu.rs.
target/two_cpus/linux-%: $(SOURCE) tests/two_cpus/program.rs
	@echo "building $@"
	@.ci/make/static two_cpus $* $@

# The program of tests/it/detach.rs.
target/leaver: $(SOURCE) tests/leaver/program.rs
	@echo "building $@"
	@.ci/make/static leaver $(CPU) $@

TWO_CPUS := target/two_cpus/linux-x86_64 target/two_cpus/linux-aarch64

test: $(LIST) $(DIST) $(TWO_CPUS) target/leaver   # every test, on an sshd and users of its own
	@.ci/make/setup hosts
	@MITOGEN_TEST_IMAGE=$(CURDIR)/$(IMAGE) .ci/make/alone $(CARGO) test --locked
	@.ci/make/alone $(CARGO) test --quiet --locked --features log --test log_crate

repeat: $(LIST) $(DIST) $(TWO_CPUS) # the tests TIMES=20 times, until one fails; ONLY="--lib" and so on
	@MITOGEN_TEST_IMAGE=$(CURDIR)/$(IMAGE) .ci/make/repeat $(or $(TIMES),20) $(ONLY)

soak: $(IMAGE)          # 10,000 connects, 1,000,000 calls: nothing may grow; takes two minutes
	@MITOGEN_SOAK=1 MITOGEN_TEST_IMAGE=$(CURDIR)/$(IMAGE) .ci/make/alone \
		$(CARGO) test --quiet --locked --test it -- soak:: --nocapture

model:                  # what threads sleep on, in every order in which they can use it
	@CARGO_TARGET_DIR=$(CURDIR)/target/model $(CARGO) run --quiet --locked \
		--manifest-path tests/model/Cargo.toml

race: $(IMAGE)          # what threads share, under ThreadSanitizer; takes some minutes
	@MITOGEN_TEST_IMAGE=$(CURDIR)/$(IMAGE) .ci/make/race

lint:                   # format, clippy, documentation
	@$(CARGO) fmt --check
	@$(CARGO) fmt --check --manifest-path tests/model/Cargo.toml
	@$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --no-default-features -- -D warnings
	@$(CARGO) clippy --quiet --locked --all-targets --features log -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --no-deps

# The bench is its own image, and only a static one may go over ssh.
BENCH := RUSTFLAGS=-Ctarget-feature=+crt-static $(CARGO) bench --quiet --locked \
	--target $(CPU)-unknown-linux-gnu --bench budgets --

check-portable:         # compiles for FreeBSD and macOS, too, and polls as they do
	@.ci/make/portable
	@echo "testing with the poller of other systems"
	@RUSTFLAGS='--cfg portable_poll' CARGO_TARGET_DIR=target/portable-poll \
		$(CARGO) test --quiet --locked --lib -- sys::poll io:: route::

bench: $(IMAGE).gz      # our rows beside their floors; also to target/bench.jsonl
	@$(BENCH) $(ROWS)

versus: $(IMAGE).gz     # the same, with the original and execnet beside them
	@$(BENCH) --versus $(ROWS)

demo:                   # a tree of local, ssh and sudo on this machine; leaves nothing behind
	@$(MAKE) -s $(IMAGE).gz target/dist/demo
	@sh src/manual/examples/demo.sh target/dist/demo

size: $(LIST)           # bytes of each image, and what they are; CPUS="aarch64 ..." for these only
	@.ci/make/size $(or $(CPUS),$(CPU))

setup:                  # installs what is missing, as root on Debian
	@.ci/make/setup

clean:
	@rm -rf target

help:
	@sed -n 's/^\([a-z-]*\):[^#]*#  *\(.*\)/  make \1\t\2/p' Makefile
