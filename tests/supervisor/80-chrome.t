#!/usr/bin/env perl

# manifests/local/chrome.conf: Playwright connects over CDP through the relay, opens a page of the pod, takes a
# screenshot; and again within 5 s of a kill -9 of Chromium.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use POSIX ();
use Pod;

my $node = "$FindBin::Bin/../lib/node/node_modules/playwright-core";
sub found { my ($name) = @_; return grep { -x "$_/$name" } split /:/, $ENV{PATH} }
for my $program (qw(chromium socat node)) {
	plan skip_all => "$program is not installed (mk/deps test)" if !found($program);
}
plan skip_all => 'playwright-core is not installed (mk/deps test)' if !-d $node;

my ($port, $relay) = map { my $s = listen_tcp(); $s->sockport } 1 .. 2;
my $root = EG::Test::eg_root();
my $profile = test_path('profile');
chmod 0755, test_dir(); # the user nobody has to get there
my $as = $< == 0 ? 'setpriv --reuid nobody --regid nogroup --clear-groups ' : '';
my $sandbox = system("${as}unshare --user true 2>/dev/null") == 0 ? 'on' : 'off';
my %env = (CHROME_PORT => $port, CHROME_RELAY_PORT => $relay, CHROME_DIR => $profile, CHROME_SANDBOX => $sandbox);
diag 'no user namespaces here: Chromium runs without its sandbox' if $sandbox eq 'off';

# The page of the pod is gatewayd's own.
my $gatewayd = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', env => { PROVIDER => 'mock', STORE_DIR => test_path('cache') });
my $page = $gatewayd->url . '/healthz';

my $pod = Pod->new('; not used: the last --config counts', args => ["--config=$root/manifests/local/chrome.conf"],
	env => { %env, PATH => $ENV{PATH} }, process => { allow => qr/./, exit => qr/^[01]$/ });

sub playwright
{
	my ($name) = @_;
	my $out = qx{node $FindBin::Bin/chrome.mjs $node http://127.0.0.1:$relay $page @{[ test_path($name) ]} 2>&1};
	return eval { json_decode($out) } // { error => $out };
}

my ($chromium) = $pod->wait_state(chromium => 'RUNNING', relay => 'RUNNING');
my $r = playwright('one.png');
is $r->{error}, undef, 'Playwright connects through the relay';
is $r->{status}, 200, 'opens a page of the pod';
like $r->{text}, qr/^\Q@{[ slurp_page() ]}\E\s*\z/, 'which is the page';
ok $r->{png} && $r->{width} > 0 && $r->{height} > 0, 'and takes a screenshot' and diag "Chromium $r->{version}, $r->{width} x $r->{height}";

sub slurp_page { my $text = EG::HTTP->new($gatewayd->url)->request('GET', '/healthz')->{body}; $text =~ s/\s+\z//; return $text }

# Whoever it runs as, it is not root; and what its sandbox says.
my $owner = (stat "/proc/$chromium->{pid}")[4];
isnt $owner, 0, 'Chromium does not run as root';
my @renderers = map { m{/proc/(\d+)/} ? $1 : () } grep { my $c = eval { slurp($_) } // ''; $c =~ /--type=renderer/ && $c =~ /\Q$profile\E/ } glob '/proc/[0-9]*/cmdline';
my %namespace = map { (readlink("/proc/$_/ns/user") // '') => 1 } @renderers;
SKIP: {
	skip 'no user namespaces here', 1 if $sandbox eq 'off';
	my $outside = readlink '/proc/self/ns/user';
	ok @renderers && !(grep { $_ eq $outside } keys %namespace), 'renderers live in a user namespace of their own' or diag explain \%namespace;
}

subtest 'kill -9: back and usable' => sub {
	my $begin = Time::HiRes::time();
	kill 'KILL', $chromium->{pid};
	# At once, without waiting for anything: the relay holds on until Chromium is back.
	my $again = playwright('two.png');
	my $s = Time::HiRes::time() - $begin;
	is $again->{error}, undef, 'Playwright connects again';
	is $again->{status}, 200, 'opens the page';
	ok $again->{png}, 'and takes a screenshot';
	cmp_ok $s, '<', instrumented() ? 20 : 5, sprintf 'all that %.1f s after the kill', $s;
	my ($now) = $pod->wait_state(chromium => 'RUNNING');
	isnt $now->{pid}, $chromium->{pid}, 'by another process';
	$chromium = $now;
};

subtest 'kill -9 of the relay' => sub {
	my ($old) = $pod->wait_state(relay => 'RUNNING');
	kill 'KILL', $old->{pid};
	wait_for { my ($now) = $pod->wait_state(relay => 'RUNNING'); $now->{pid} != $old->{pid} } 'another relay';
	is playwright('three.png')->{status}, 200, 'usable again';
	my ($now) = $pod->wait_state(chromium => 'RUNNING');
	is $now->{pid}, $chromium->{pid}, 'Chromium went on';
};

cmp_ok $pod->stop >> 8, '<=', 1, 'the pod stops';
my @left = grep { (eval { slurp($_) } // '') =~ /\Q$profile\E/ } glob '/proc/[0-9]*/cmdline';
is "@left", '', 'and nothing of Chromium is left';

subtest 'without user namespaces it does not start, and says why' => sub {
	# A kernel that refuses.
	mkdir test_path('bin') or die;
	spew(test_path('bin/unshare'), "#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n");
	chmod 0755, test_path('bin'), test_path('bin/unshare');
	local %ENV = (%ENV, %env, CHROME_SANDBOX => 'on', CHROME_DIR => test_path('other'), PATH => test_path('bin') . ":$ENV{PATH}");
	my $out = qx{$root/manifests/local/chrome 2>&1};
	is $? >> 8, 78, 'exit code' or diag $out;
	like $out, qr/there is no sandbox/, 'says what is missing';
	like $out, qr/CHROME_SANDBOX=off if every page/, 'and what to do';
};

done_testing;
