#!/usr/bin/env perl

# The store in a bucket of a real S3 server, seen by an independent client in both directions.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Radosgw;
use Digest::SHA qw(sha256_hex);

my $MODEL = 'text-embedding-3-small';
my $s3 = EG::Radosgw->start;
$s3->python("for b in sys.argv[1:]: s3.create_bucket(Bucket=b)\n", qw(one two tiers legacy hashed));
my $openai = fake_openai();

my $n = 0;
sub gateway
{
	my (%env) = @_;
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock',
		env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE => 's3', $s3->env, %env });
}

sub ask { my ($d, $input, %more) = @_; return http_json($d->url . '/v1/embeddings', { input => $input, model => $MODEL, %more }) }

sub metric
{
	my ($d, $name) = @_;
	return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

sub stored { my ($d, $count, $store) = @_; return wait_for { metric($d, 'gatewayd_store_puts_total{store="' . ($store // 's3') . '",result="stored"}') == $count } "$count puts" }

my $answer;
subtest 'what we write, boto3 reads' => sub {
	my $d = gateway(S3_BUCKET => 'one');
	$answer = ask($d, 'the text');
	is $answer->{headers}{'x-cache'}, 'MISS', 'bought';
	ask($d, [ 'b', 'c', "gr\x{fc}\x{df}e" ], dimensions => 8);
	stored($d, 4);
	my $seen = json_decode($s3->python(<<'PY'));
objects = {}
for item in s3.list_objects_v2(Bucket='one')['Contents']:
    object = s3.get_object(Bucket='one', Key=item['Key'])
    objects[item['Key']] = {'type': object['ContentType'], 'encoding': object['ContentEncoding'],
        'meta': object['Metadata'], 'json': json.loads(gzip.decompress(object['Body'].read()))}
request = {'model': 'text-embedding-3-small', 'input': 'the text'}
key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
print(json.dumps({'objects': objects, 'single': 'embeddings/%s.json.gz' % key}))
PY
	my %objects = %{ $seen->{objects} };
	is scalar keys %objects, 4, 'four objects';
	my $object = $objects{ $seen->{single} };
	ok $object, 'one under the key that Python computes';
	is "$object->{type} $object->{encoding}", 'application/json gzip', 'with its type and encoding';
	is $object->{json}{model}, $MODEL, 'an answer as of a provider';
	is $object->{json}{usage}{total_tokens}, $answer->{json}{usage}{total_tokens}, 'with its usage';
	is $object->{meta}{model}, $MODEL, 'its model is mirrored in the metadata';
	is $object->{meta}{dimensions}, 1536, 'dimensions too';
	is $object->{meta}{vector}, 'base64', 'and the form';
	like $object->{meta}{'stored-at'}, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'and the time';
	is scalar(grep { $_->{meta}{parameters} =~ /dimensions/ } values %objects), 3, 'parameters of those that had some';
	my $calls = $openai->calls;
	$d->restart;
	my $again = ask($d, 'the text');
	is $again->{headers}{'x-cache'}, 'HIT', 'a hit after a restart';
	is_deeply $again->{json}, $answer->{json}, 'the same answer';
	is ask($d, [ "gr\x{fc}\x{df}e", 'b' ], dimensions => 8)->{headers}{'x-cache'}, 'HIT', 'the batch';
	is $openai->calls, $calls, 'nothing bought';
};

subtest 'what boto3 writes, we read' => sub {
	my $calls = $openai->calls;
	my $tmp = test_path('copied');
	mkdir $tmp;
	# Down and up again by another client, as `aws s3 sync` does: no metadata survives.
	$s3->python(<<'PY', $tmp);
for item in s3.list_objects_v2(Bucket='one')['Contents']:
    path = os.path.join(sys.argv[1], os.path.basename(item['Key']))
    s3.download_file('one', item['Key'], path)
    s3.upload_file(path, 'two', item['Key'])
PY
	my $d = gateway(S3_BUCKET => 'two');
	my $r = ask($d, 'the text');
	is $r->{headers}{'x-cache'}, 'HIT', 'a hit in a copied bucket';
	is_deeply $r->{json}, $answer->{json}, 'the same answer';
	mkdir test_path('as-dir');
	rename $tmp, test_path('as-dir/embeddings');
	my $dir = gateway(STORE => 'dir', STORE_DIR => test_path('as-dir'));
	is ask($dir, 'the text')->{headers}{'x-cache'}, 'HIT', 'and in a directory';
	is $openai->calls, $calls, 'nothing bought';
};

subtest 'a directory in front of a bucket' => sub {
	my $dir = test_path('near');
	my %tiers = (STORE => 'dir,s3', STORE_DIR => $dir, S3_BUCKET => 'tiers');
	my $d = gateway(%tiers);
	ask($d, [ 'x', 'y' ]);
	stored($d, 2, $_) for qw(dir s3);
	my @objects = glob "$dir/embeddings/*";
	is scalar @objects, 2, 'stored in both';
	my $same = $s3->python(<<'PY', $dir);
same = [open(os.path.join(sys.argv[1], item['Key']), 'rb').read() == s3.get_object(Bucket='tiers', Key=item['Key'])['Body'].read()
    for item in s3.list_objects_v2(Bucket='tiers')['Contents']]
print(same)
PY
	is $same, "[True, True]\n", 'the same names, the same bytes';
	my $calls = $openai->calls;
	$d->stop;
	unlink @objects;
	$d->start;
	is ask($d, [ 'x', 'y' ])->{headers}{'x-cache'}, 'HIT', 'found in the bucket';
	stored($d, 2, 'dir');
	is metric($d, 'gatewayd_store_look_ups_total{store="dir",result="miss"}'), 2, 'after two misses in the directory';
	is metric($d, 'gatewayd_store_look_ups_total{store="s3",result="hit"}'), 2, 'two hits in the bucket';
	is metric($d, 'gatewayd_store_puts_total{store="s3",result="stored"}'), 0, 'nothing went back there';
	$s3->python("for o in s3.list_objects_v2(Bucket='tiers')['Contents']: s3.delete_object(Bucket='tiers', Key=o['Key'])\n");
	$d->restart;
	is ask($d, [ 'x', 'y' ])->{headers}{'x-cache'}, 'HIT', 'the directory has them now';
	is $openai->calls, $calls, 'nothing bought';
};

subtest 'a corrupt object' => sub {
	my $d = gateway(S3_BUCKET => 'two');
	my $calls = $openai->calls;
	$s3->python(<<'PY');
for item in s3.list_objects_v2(Bucket='two')['Contents']:
    data = s3.get_object(Bucket='two', Key=item['Key'])['Body'].read()
    s3.put_object(Bucket='two', Key=item['Key'], Body=data[:-20])
PY
	is ask($d, 'the text')->{headers}{'x-cache'}, 'MISS', 'is a miss';
	is metric($d, 'gatewayd_store_look_ups_total{store="s3",result="corrupt"}'), 1, 'counted';
	stored($d, 1);
	$d->restart;
	is ask($d, 'the text')->{headers}{'x-cache'}, 'HIT', 'and replaced';
	is $openai->calls, $calls + 1, 'bought once';
};

for my $layout (qw(embeddings hashed)) {
	subtest "a bucket of the Python gateway: $layout" => sub {
		my $bucket = $layout eq 'hashed' ? 'hashed' : 'legacy';
		my @requests = ({ input => 'alone', model => $MODEL },
			{ input => [ map { "l$_" } 1 .. 20 ], model => $MODEL, dimensions => 8, user => 'u' });
		my (@answers, $lines);
		for my $request (@requests) {
			push @answers, http_json($openai->base . '/embeddings', $request, [ Authorization => 'Bearer sk-x' ])->{json};
			$lines .= json_encode({ body => json_encode($request), answer => $answers[-1] }) . "\n";
		}
		spew(test_path('lines'), $lines);
		my %env = ($s3->env, PATH => $ENV{PATH});
		local @ENV{ keys %env } = values %env;
		my @names = `/usr/bin/python3 '@{[ eg_root() ]}/tests/lib/legacy_store' $layout s3://$bucket < '@{[ test_path('lines') ]}'`;
		is scalar @names, 2, 'filled';
		my $calls = $openai->calls;
		my $d = gateway(S3_BUCKET => $bucket, STORE_LEGACY_LAYOUT => $layout);
		for my $i (0, 1) {
			my $r = http_json($d->url . '/v1/embeddings', $requests[$i]);
			is $r->{headers}{'x-cache'}, 'HIT', 'served';
			is_deeply $r->{json}, $answers[$i], 'as it was';
		}
		is ask($d, 'l7', dimensions => 8)->{headers}{'x-cache'}, 'HIT', 'and each of its elements';
		is $openai->calls, $calls, 'without a single purchase';
	};
}

subtest 'temporary credentials' => sub {
	my $listener = listen_tcp();
	my $d = gateway(S3_ENDPOINT_URL => 'http://127.0.0.1:' . $listener->sockport, AWS_SESSION_TOKEN => 'tok/en+1=', AWS_REGION => 'eu-west-7',
		S3_BUCKET => 'one', STORE_DEADLINE => '20s');
	my $pid = fork // die "fork: $!";
	if (!$pid) { ask($d, 'signed'); POSIX::_exit(0) }
	my $client;
	my $next = sub {
		$client = $listener->accept;
		my $head = '';
		while ($head !~ /\r\n\r\n/) { sysread $client, $head, 4096, length $head or last }
		return $head;
	};
	# Nothing is looked up before it is known what was purged.
	my $head = $next->();
	like $head, qr{^GET /one\?list-type=2&max-keys=\d+&prefix=purges%2F HTTP/1\.1\r\n}, 'purges first';
	my $none = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>';
	print $client "HTTP/1.1 200 OK\r\nContent-Length: @{[ length $none ]}\r\nConnection: close\r\n\r\n$none";
	close $client;
	$head = $next->();
	like $head, qr{^GET /one/embeddings/[0-9a-f]{64}\.json\.gz HTTP/1\.1\r\n}, 'path-style';
	like $head, qr{^x-amz-security-token: tok/en\+1=\r$}mi, 'the token is sent';
	like $head, qr{^Authorization: AWS4-HMAC-SHA256 Credential=testkey/\d{8}/eu-west-7/s3/aws4_request, ?SignedHeaders=[^,]*x-amz-security-token}mi,
		'and signed, for the region';
	like $head, qr/^x-amz-content-sha256: @{[ sha256_hex('') ]}\r$/mi, 'of an empty body';
	unlike $head, qr/^accept-encoding/mi, 'bodies as they are';
	print $client "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	close $client;
	close $listener;
	waitpid $pid, 0;
	$d->kill9;
};

subtest 'settings' => sub {
	my %env = (OPENAI_API_KEY => 'sk', STORE => 's3');
	my $refused = sub {
		my ($sentence, %more) = @_;
		local %ENV = (%ENV, %env, %more);
		my $said = `@{[ eg_bin('gatewayd') ]} --check-config 2>&1`;
		is $? >> 8, 78, 'refused';
		like $said, $sentence, 'by name';
	};
	$refused->(qr/AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY/);
	$refused->(qr/S3_BUCKET/, $s3->env, S3_BUCKET => 'a/../b');
	$refused->(qr/S3_ENDPOINT_URL/, $s3->env, S3_ENDPOINT_URL => 'ftp://x');
	local %ENV = (%ENV, %env, $s3->env);
	delete $ENV{S3_ENDPOINT_URL};
	$ENV{S3_ENDPOINT} = $s3->url;
	my $printed = `@{[ eg_bin('gatewayd') ]} --print-config`;
	like $printed, qr/^S3_ENDPOINT_URL=\Q@{[ $s3->url ]}\E$/m, 'the alias';
	unlike $printed, qr/testsecret123/, 'no secret is printed';
};

done_testing;
