# embedding-gateway: one non-recursive Makefile. `make help` lists the targets.
#
# A directory is a program: hashd/*.c becomes build/bin/hashd. Everything that is not main() goes into
# one archive a directory, which the C tests link too. Objects of different VARIANTs never mix.

# Directories with an archive each, beside common/.
DIRS  := gatewayd hashd broadcasterd exportermerger redisproxy supervisor
TOOLS := podctl cachectl
# Source of a tool's main(); the rest comes from that directory's archive.
podctl_MAIN := supervisor/podctl.c
cachectl_MAIN := gatewayd/cachectl.c
# What has no main() in this tree is not linked.
DAEMONS := $(foreach d,$(DIRS),$(if $(wildcard $(d)/main.c),$(d)))
TOOLS := $(foreach t,$(TOOLS),$(if $(wildcard $($(t)_MAIN)),$(t)))

VARIANT ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
O   := build/$(VARIANT)
BIN := $(if $(filter release,$(VARIANT)),build/bin,$(O)/bin)
T   := $(if $(filter release,$(VARIANT)),build/tests,$(O)/tests)

# As many jobs as processors, unless -j says otherwise.
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

include mk/flags.mk
include mk/build.mk
include mk/test.mk
include mk/run.mk
include mk/lint.mk
include mk/bench.mk

.DEFAULT_GOAL := all
.PHONY: all help clean install
all: $(ARCHIVES) $(PROGRAMS) ## build everything into build/bin

help: ## print this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prefix ?= /usr/local
install: all ## install the programs below $(DESTDIR)$(prefix)
	install -d $(DESTDIR)$(prefix)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(prefix)/bin

clean: ## remove build/
	rm -rf build
