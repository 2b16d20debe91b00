#!/usr/bin/env perl

# The directory store is full, or cannot be written at all: every request is answered, what is stored is
# whole and served on, and metrics and one log line say what is wrong.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $small = test_path('small');
mkdir $small;
system('mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', $small) == 0 or plan(skip_all => 'mounting needs root');
my $owner = $$;
END { system('umount', '-l', $small) if defined $owner && $$ == $owner && -d "$small/embeddings" }

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', allow => qr/store cannot be written|not stored are lost/,
	env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => $small, STORE_MAX_SIZE => 0 });
my $M = 'text-embedding-3-small';

sub ask { my @t = @_; return http_json($d->url . '/v1/embeddings', { input => \@t, model => $M, encoding_format => 'base64' }, [ Authorization => 'Bearer sk-good' ]) }
sub metric { my ($name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }
sub puts { return metric("gatewayd_store_puts_total{store=\"dir\",result=\"$_[0]\"}") }
# Look-ups that a busy machine did not do in their time.
sub late { return metric('gatewayd_store_deadline_total') // 0 }
sub objects { my @o = glob "$small/embeddings/*.json.gz"; return scalar @o }
# cachectl checks every object.
sub verify { my $out = qx{@{[ eg_bin('cachectl') ]} verify --store $small --json 2>/dev/null}; return json_decode($out) }

my @texts = map { "to be stored $_" } 0 .. 399; # 2.5 MB

subtest 'full' => sub {
	my $wrong = grep { $_->{status} != 200 } map { ask(@texts[ $_ * 40 .. $_ * 40 + 39 ]) } 0 .. 9;
	is $wrong, 0, 'every request is answered';
	# Those that do not fit fail, and wait for another try.
	wait_for { (puts('stored') // 0) > 50 && puts('failed') } 'some to be stored, and others to fail';
	is ask(@texts)->{headers}{'x-cache-hits'}, '400/400', 'all of it is in memory';
	is $openai->stats->{inputs}, 400, 'bought once';
	my @said = grep { ($_->{body} // '') =~ /store cannot be written/ } $d->log_lines;
	cmp_ok scalar @said, '<=', 3, 'said, not a line for each';
	like $said[0]{reason}, qr/No space left/, 'with the reason';
};

subtest 'room again' => sub {
	unlink for (glob "$small/embeddings/*.json.gz")[ 0 .. 19 ];
	my $before = puts('stored');
	is ask('after the cleaning')->{status}, 200, 'answered';
	wait_for { puts('stored') > $before } 'it to be stored';
	pass 'stored';
};

subtest 'a restart with a full store' => sub {
	$d->stop; # all are tried once more
	is_deeply [ glob "$small/tmp/*" ], [], 'nothing but objects lies about';
	my $v = verify();
	is "$v->{good} $v->{bad}", objects() . ' 0', 'and every one is whole';
	my $there = objects();
	$d->start;
	is ask(@texts)->{status}, 200, 'answered';
	cmp_ok metric('gatewayd_store_look_ups_total{store="dir",result="hit"}'), '>=', $there - 1 - late(), 'what was stored is served';
};

subtest 'read-only' => sub {
	is system('mount', '-o', 'remount,ro', $small), 0, 'remounted';
	is ask('nowhere to go')->{status}, 200, 'bought and answered';
	my $failed = puts('failed');
	wait_for { puts('failed') > $failed } 'the failure to be counted';
	$d->restart;
	my $v = verify();
	my $r = ask(@texts);
	is $r->{status}, 200, 'answered after a restart';
	like $r->{headers}{'x-cache-hits'}, qr/^(\d+)\/400$/, 'hits';
	cmp_ok +($r->{headers}{'x-cache-hits'} =~ /^(\d+)/)[0], '>=', $v->{good} - 2 - late(), 'all that is there';
	system 'mount', '-o', 'remount,rw', $small;
	is ask('writable again')->{status}, 200, 'answered';
};

subtest 'what was bought meanwhile is stored when there is room' => sub {
	is system('mount', '-o', 'remount,ro', $small), 0, 'read-only';
	my ($failed, $given_up, $stored) = map { puts($_) } qw(failed given_up stored);
	is ask(map { "bought in bad times $_" } 1 .. 64)->{status}, 200, '64 are bought';
	wait_for { puts('failed') >= $failed + 4 } 'some tries';
	cmp_ok puts('failed'), '<', $failed + 64, 'one at a time tries';
	is system('mount', '-o', 'remount,rw,size=20m', $small), 0, 'writable, and larger';
	wait_for { puts('stored') >= $stored + 64 } 'all to be stored';
	is puts('given_up'), $given_up, 'none was given up';
};

done_testing;
