# Compiler and linker flags of each VARIANT: release, sanitize, thread, cover, fuzz.

PACKAGES := libevent libcurl libssl libcrypto zlib msgpack jansson hiredis
PKG_CONFIG ?= pkg-config
# Evaluated once, and only when something is compiled: `make deps` must work without the libraries.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell $$(PKG_CONFIG) --cflags $$(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(shell $$(PKG_CONFIG) --libs $$(PACKAGES)))$(PKG_LIBS)

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wformat=2 -Wundef
BASE := -std=gnu11 -D_GNU_SOURCE -I. -pthread -g $(WARN)
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fPIE
LINK := -pthread -Wl,--as-needed -Wl,--gc-sections

ifeq ($(VARIANT),release)
VARIANT_CFLAGS := -O2 -ffunction-sections -fdata-sections $(HARDEN)
VARIANT_LDFLAGS := -pie -Wl,-z,relro,-z,now
else ifeq ($(VARIANT),sanitize)
VARIANT_CFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
VARIANT_LDFLAGS := -fsanitize=address,undefined
else ifeq ($(VARIANT),thread)
VARIANT_CFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=thread
VARIANT_LDFLAGS := -fsanitize=thread
else ifeq ($(VARIANT),cover)
VARIANT_CFLAGS := -O0 --coverage
VARIANT_LDFLAGS := --coverage
else ifeq ($(VARIANT),fuzz)
CC := clang
VARIANT_CFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
VARIANT_LDFLAGS := -fsanitize=fuzzer,address,undefined
else ifeq ($(VARIANT),clang)
CC := clang
VARIANT_CFLAGS := -O2 -ffunction-sections -fdata-sections $(HARDEN)
VARIANT_LDFLAGS := -pie -Wl,-z,relro,-z,now
else
$(error VARIANT is one of release, sanitize, thread, cover, fuzz, clang; not "$(VARIANT)")
endif

ALL_CFLAGS  = $(BASE) $(VARIANT_CFLAGS) $(PKG_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LINK) $(VARIANT_LDFLAGS) $(LDFLAGS)

# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')
