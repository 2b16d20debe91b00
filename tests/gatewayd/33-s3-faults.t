#!/usr/bin/env perl

# The bucket is never in the way: wrong keys, a server that is gone, one that hangs.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Radosgw;
use Time::HiRes qw(time);

my $MODEL = 'text-embedding-3-small';
my $s3 = EG::Radosgw->start;
$s3->python("for b in sys.argv[1:]: s3.create_bucket(Bucket=b)\n", qw(one two three four));
my $openai = fake_openai();
# Deadlines of 1 s; a busy machine may be late.
my $LATE = $EG::Test::TIMEOUT > 30 ? 20 : 2.5;

my $n = 0;
sub gateway
{
	my ($bucket, %env) = @_;
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock',
		env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE => 's3', $s3->env, S3_BUCKET => $bucket, %env });
}

sub ask { my ($d, $input) = @_; return http_json($d->url . '/v1/embeddings', { input => $input, model => $MODEL, dimensions => 8 }) }

sub metric
{
	my ($d, $name) = @_;
	return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

sub puts { my ($d, $result) = @_; return metric($d, qq(gatewayd_store_puts_total{store="s3",result="$result"})) }
sub pending { my ($d) = @_; return metric($d, 'gatewayd_store_puts_pending{store="s3"}') }
sub objects { my ($bucket) = @_; return 0 + $s3->python("print(s3.list_objects_v2(Bucket=sys.argv[1])['KeyCount'])\n", $bucket) }

sub timed { my ($code) = @_; my $start = time; my $r = $code->(); $r->{seconds} = time - $start; return $r }

subtest 'a wrong secret' => sub {
	my $d = gateway('one', AWS_SECRET_ACCESS_KEY => 'wrong-secret');
	for my $text (1 .. 5) {
		my $r = ask($d, "denied $text");
		is $r->{status}, 200, 'answered';
		is $r->{headers}{'x-cache'}, 'MISS', 'bought';
	}
	is ask($d, 'denied 1')->{headers}{'x-cache'}, 'HIT', 'memory works';
	wait_for { 5 <= puts($d, 'failed') } 'five refused puts';
	my @errors = grep { /"severitytext":"ERROR"/ } split /\n/, $d->log;
	is scalar @errors, 3, 'one line for purges, one for reading, one for writing, whatever the number' or diag @errors;
	like $errors[0], qr/purges.*SignatureDoesNotMatch/, 'purges';
	like $errors[1], qr/the store cannot be read.*bucket one: status 403 SignatureDoesNotMatch: check AWS_SECRET_ACCESS_KEY/, 'reading, with what to do';
	like $errors[2], qr/the store cannot be written.*SignatureDoesNotMatch/, 'and writing';
	unlike $d->log, qr/wrong-secret/, 'and never the secret';
	cmp_ok metric($d, 'gatewayd_store_denied_total{store="s3"}'), '>=', 10, 'and a metric counts';
	is objects('one'), 0, 'nothing was stored';
	$d->kill9;
};

subtest 'a wrong key, a wrong bucket' => sub {
	my $d = gateway('one', AWS_ACCESS_KEY_ID => 'nobody');
	is ask($d, 'nobody')->{status}, 200, 'answered';
	like $d->log, qr/InvalidAccessKeyId: check AWS_ACCESS_KEY_ID/, 'the key is named';
	$d->kill9;
	$d = gateway('no-such-bucket');
	is ask($d, 'nowhere')->{status}, 200, 'answered';
	like $d->log, qr/status 404 NoSuchBucket: make the bucket, or check S3_BUCKET/, 'the bucket is named';
	$d->kill9;
};

subtest 'a server that hangs' => sub {
	my $d = gateway('two');
	ask($d, 'before');
	wait_for { 1 == puts($d, 'stored') } 'a put';
	$s3->freeze;
	my $r = timed(sub { ask($d, 'alone') });
	is $r->{status}, 200, 'one text is answered';
	cmp_ok $r->{seconds}, '<', $LATE, "in $r->{seconds} s";
	$r = timed(sub { ask($d, [ map { "of many $_" } 1 .. 500 ]) });
	is $r->{status}, 200, '500 texts are answered';
	cmp_ok $r->{seconds}, '<', $LATE + 0.5, "in $r->{seconds} s";
	my $start = time;
	my $body = json_encode({ input => 'at once', model => $MODEL, dimensions => 8 });
	my @many = http_many([ map { { url => $d->url, method => 'POST', target => '/v1/embeddings', headers => [ 'Content-Type' => 'application/json' ],
		body => $body =~ s/at once/at once $_/r } } 1 .. 50 ]);
	is scalar(grep { $_->{status} == 200 } @many), 50, '50 clients at a time';
	cmp_ok time - $start, '<', $LATE + 0.5, 'in ' . (time - $start) . ' s';
	cmp_ok metric($d, 'gatewayd_store_deadline_total'), '>=', 551, 'counted';
	is pending($d), 551, 'all of it waits to be stored';
	is puts($d, 'stored'), 1, 'nothing was stored meanwhile';
	$s3->thaw;
	wait_for { 0 == pending($d) } 'the queue to be written';
	is puts($d, 'stored'), 552, 'all is stored';
	is puts($d, 'given_up') + puts($d, 'dropped'), 0, 'nothing was lost';
	my $calls = $openai->calls;
	$d->restart;
	is ask($d, [ 'alone', 'before', 'at once 50', map { "of many $_" } 1 .. 500 ])->{headers}{'x-cache'}, 'HIT', 'and served';
	is $openai->calls, $calls, 'nothing is bought twice';
	$d->stop;
};

subtest 'a server that is gone' => sub {
	my $d = gateway('three');
	ask($d, 'before');
	wait_for { 1 == puts($d, 'stored') } 'a put';
	$s3->kill_gateway;
	for my $i (1 .. 20) {
		my $r = timed(sub { ask($d, "gone $i") });
		ok $r->{status} == 200 && $r->{seconds} < $LATE, "answered in $r->{seconds} s";
	}
	is pending($d), 20, 'all waits';
	my @warnings = grep { /the store cannot be/ } split /\n/, $d->log;
	is scalar @warnings, 2, 'one line for reading, one for writing';
	$s3->start_gateway;
	wait_for { 0 == pending($d) } 'the queue to be written';
	is puts($d, 'stored'), 21, 'all is stored';
	is objects('three'), 21, 'as boto3 sees';
	$d->stop;
};

subtest 'a drain while it is gone' => sub {
	my $d = gateway('four', TERMINATION_GRACE_PERIOD => '30s');
	$s3->kill_gateway;
	ask($d, "late $_") for 1 .. 5;
	is pending($d), 5, 'waiting';
	kill TERM => $d->pid;
	wait_for { scalar $d->log =~ /"draining"/ } 'the drain';
	$s3->start_gateway;
	wait_for { scalar $d->log =~ /"stopped"/ } 'its end';
	is objects('four'), 5, 'the queue was written before the end';
	$d->stop;
};

subtest 'the queue is bounded' => sub {
	$s3->kill_gateway;
	my $d = gateway('four', STORE_QUEUE => 10, TERMINATION_GRACE_PERIOD => '1s');
	ask($d, [ map { "bounded $_" } 1 .. 25 ]);
	is pending($d), 10, 'ten wait';
	is puts($d, 'dropped'), 15, 'the others are dropped and counted';
	$d->stop;
	like $d->log, qr/"embeddings that were not stored are lost".*"objects":10/, 'an end without the server says what is lost';
};

done_testing;
